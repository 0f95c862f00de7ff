"""Reads settings from YAML, remembering the line of every value, and writes them back.

Scalars follow YAML 1.2: `1e-4` is a number, `yes` and `off` are texts, `2024-01-01` is no date.
"""

import re
from typing import Any, ClassVar, NamedTuple

import yaml
from etils import epath

from adakd_jax.config.report import Given, Path, Problem, dotted
from adakd_jax.config.schema import closest
from adakd_jax.config.stage import Stage
from adakd_jax.user_path import user_path

_TAG = "tag:yaml.org,2002:"
_SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


class YamlFile(NamedTuple):
    """The values of a file, the line where each stands, and what cannot be read."""

    values: dict[str, Any]
    lines: dict[Path, int]
    problems: list[Problem]


class _Loader(yaml.SafeLoader):
    """Knows no other plain scalars than those below."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or 1.2 would read as anything but text."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: list(known) for first, known in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern})$"), _first)
_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence(_TAG + "seq", data, flow_style=True)
)


def read_yaml(path: str) -> YamlFile:
    """Reads a local or gs:// file; nothing is raised, what is wrong stands in `problems`."""
    lines: dict[Path, int] = {}
    problems: list[Problem] = []
    try:
        text = user_path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ImportError) as error:
        return YamlFile({}, {}, [_unreadable(path, error)])
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        values = {} if node is None else _build(loader, node, (), path, lines, problems)
    except yaml.YAMLError as error:
        return YamlFile({}, {}, [_syntax_problem(path, error)])
    if not isinstance(values, dict):
        valid = "lines of `key: value`, as in configs/*.yaml"
        problem = Problem(path, "holds no settings", (Given("", values, f"{path}:1"),), valid)
        return YamlFile({}, {}, [problem])
    return YamlFile(values, lines, problems)


def dump_yaml(config: Stage) -> str:
    """Returns all settings as YAML that `read_yaml` reads back to the same values."""
    return yaml.dump(
        config.model_dump(mode="json"),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )


def _build(
    loader: _Loader,
    node: yaml.Node,
    path: Path,
    file: str,
    lines: dict[Path, int],
    problems: list[Problem],
) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [
            _build(loader, item, (*path, index), file, lines, problems)
            for index, item in enumerate(node.value)
        ]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        line = key_node.start_mark.line + 1
        if key in values:
            name = dotted((*path, key))
            second = _build(loader, value_node, (*path, key), file, {}, problems)
            first = Given(name, values[key], f"{file}:{lines[(*path, key)]}")
            given = (first, Given(name, second, f"{file}:{line}"))
            problems.append(Problem(name, "stands twice in one file", given, "one of the two"))
            continue
        lines[(*path, key)] = line
        values[key] = _build(loader, value_node, (*path, key), file, lines, problems)
    return values


def _syntax_problem(path: str, error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{path}:{mark.line + 1}" if mark else path
    words = [getattr(error, "context", None), getattr(error, "problem", None)]
    what = ", ".join(word for word in words if word) or str(error)
    shown = mark.buffer.splitlines()[mark.line].strip() if mark and mark.buffer else ""
    given = (Given("", shown, where),) if shown.strip("\0") else ()
    return Problem(
        where, f"not valid YAML: {what}", given, "lines of `key: value`, nested by spaces"
    )


def _unreadable(path: str, error: Exception) -> Problem:
    if isinstance(error, FileNotFoundError):
        folder = user_path(path).parent
        near = closest(path.rsplit("/", 1)[-1], _yaml_names(folder))
        hint = f"did you mean {folder / near}?" if near else "an existing YAML file"
        return Problem(f"--config {path}", "no such file", (), hint)
    reason = getattr(error, "strerror", None) or str(error)
    return Problem(f"--config {path}", f"cannot be read: {reason}", (), "a YAML file in UTF-8")


def _yaml_names(folder: epath.Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [file.name for file in folder.iterdir() if file.suffix in (".yaml", ".yml")]
