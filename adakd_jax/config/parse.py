"""From a command line to checked settings: YAML files, flags over them, one report if wrong."""

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, NoReturn, TypeVar

from pydantic import ValidationError
from rich.text import Text

from adakd_jax.config.flags import Arguments, read_flags
from adakd_jax.config.help import help_page
from adakd_jax.config.overlay import overlay, with_default_kinds
from adakd_jax.config.report import Path, Problem, problems_in, render
from adakd_jax.config.stage import Stage
from adakd_jax.config.yaml_file import dump_yaml, read_yaml
from adakd_jax.console import Console

Config = TypeVar("Config", bound=Stage)
_PRINT = "print_config"
_NONE: Mapping[str, str] = MappingProxyType({})


class Parsed(NamedTuple):
    """Settings, or everything that is wrong with them."""

    config: Stage | None
    problems: list[Problem]


def parse(
    model: type[Config],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    extra_flags: Mapping[str, str] = _NONE,
    positionals: Sequence[str] = (),
    requires_config: bool = True,
) -> tuple[Config, dict[str, bool]]:
    """Reads a command's settings, or ends the program: 0 after help, 2 after mistakes.

    Args:
      model: the root of the settings; each of its keys is a flag.
      argv: the arguments after the program's name, as in `sys.argv[1:]`.
      prog: what one types to run the command, e.g. 'python -m adakd_jax.train'.
      description: what the command does, for the help page.
      extra_flags: flags without a value and what they do, e.g. {'dry_run': '…'}.
      positionals: keys that arguments without a flag fill, in order.
      requires_config: whether `--config` must be given.

    Returns:
      The settings, and for each of `extra_flags` whether it was given.

    Raises:
      SystemExit: help, `--print_config`, or mistakes, all of them in one report on stderr.
    """
    arguments = read_flags(model, argv, switches=[*extra_flags, _PRINT], positionals=positionals)
    if arguments.help_topic is not None:
        page = help_page(
            model,
            prog,
            description,
            extra_flags,
            positionals=positionals,
            requires_config=requires_config,
            topic=arguments.help_topic,
        )
        _show(page)
        raise SystemExit(0)
    if requires_config and not arguments.files:
        usage = f"usage: {prog} --config FILE [--KEY VALUE ...]"
        _fail(f"{usage}\n\n--config is missing; --help explains every key.")
    config, problems = resolve(model, arguments)
    if config is None:
        _fail(render(prog, problems))
    if arguments.switches[_PRINT]:
        print(dump_yaml(config), end="")
        raise SystemExit(0)
    return config, {name: arguments.switches[name] for name in extra_flags}


def resolve(model: type[Config], arguments: Arguments) -> tuple[Config | None, list[Problem]]:
    """Returns the settings of a command line; None and what is wrong if anything is."""
    values: dict = {}
    origins: dict[Path, str] = {}
    problems = list(arguments.problems)
    unread = False
    for name in arguments.files:
        file = read_yaml(name)
        problems += file.problems
        unread = unread or (bool(file.problems) and not file.lines)
        values = overlay(model, values, with_default_kinds(model, file.values))
        origins.update({path: f"{name}:{line}" for path, line in file.lines.items()})
    values = with_default_kinds(model, overlay(model, values, arguments.values))
    origins.update(arguments.origins)
    try:
        config = model.model_validate(values)
    except ValidationError as error:
        # Without its file, most keys would only be reported as missing.
        known = {problem.key.removeprefix("--") for problem in problems}
        found = [] if unread else problems_in(model, error, origins)
        return None, problems + [problem for problem in found if problem.key not in known]
    return (None if problems else config), problems


def _show(page: str) -> None:
    """Prints the help page, with colours if it goes to a terminal."""
    text = Text(page, end="")
    text.highlight_regex(r"(?m)^[A-Z]+$", "bold")
    text.highlight_regex(r"--[a-z][\w.]*", "cyan")
    text.highlight_regex(r"\[[^\[\]]*(required|default [^\]]*)\]", "dim")
    Console().print(text)


def _fail(report: str) -> NoReturn:
    print(report, file=sys.stderr)
    raise SystemExit(2)
