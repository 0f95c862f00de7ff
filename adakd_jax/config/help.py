"""The page that `--help` prints: every setting with what it means, takes and defaults to."""

import shutil
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic.fields import FieldInfo

from adakd_jax.config.schema import choices, closest, default_in_words, in_words
from adakd_jax.config.stage import Stage, stages_in

_WIDEST = 100
_COLUMN = 36


def help_page(
    model: type[Stage],
    prog: str,
    description: str,
    switches: Mapping[str, str],
    *,
    positionals: Sequence[str] = (),
    requires_config: bool = False,
    topic: str = "",
    width: int | None = None,
) -> str:
    """Returns the help text of a command, or of one stage if `topic` names it.

    Args:
      model: the settings.
      prog: what one types to run the command, e.g. 'python -m adakd_jax.train'.
      description: what the command does.
      switches: flags without a value, and what they do.
      positionals: keys that may be given without their flag.
      requires_config: whether `--config` must be given.
      topic: the name of a stage, e.g. 'optimizer'; '' for everything.
      width: of a line, in characters; None: that of the terminal, at most 100.
    """
    page = _Page(width or min(_WIDEST, shutil.get_terminal_size().columns))
    stages = {n: f for n, f in model.model_fields.items() if stages_in(f.annotation)}
    topic = topic if topic in stages else closest(topic, stages) or ""
    if not topic:
        places = "".join(f" [{name.upper()}]" for name in positionals)
        file = "--config FILE" if requires_config else "[--config FILE]"
        page.lines.append(f"usage: {prog}{places} {file} [--KEY VALUE ...]")
        _introduction(page, description, switches, list(stages))
        plain = {n: f for n, f in model.model_fields.items() if n not in stages}
        if plain:
            page.title("general", model.__doc__ or "")
            for name, field in plain.items():
                page.option(name, field)
    for name, field in stages.items():
        if topic in ("", name):
            _section(page, name, field)
    return "\n".join(page.lines).strip() + "\n"


class _Page:
    """Lines under construction, wrapped to a width; flags to the left, meanings to the right."""

    def __init__(self, width: int) -> None:
        self.lines: list[str] = []
        self.width = width
        self._shown: dict[tuple[type[Stage], ...], str] = {}

    def text(self, text: str, indent: int = 0) -> None:
        """Adds a paragraph."""
        pad = " " * indent
        self.lines += textwrap.wrap(
            text, self.width, initial_indent=pad, subsequent_indent=pad, break_on_hyphens=False
        )

    def title(self, name: str, text: str) -> None:
        """Adds the heading of a stage."""
        self.gap()
        self.lines.append(name.upper())
        self.text(" ".join(text.split()), indent=2)
        self.gap()

    def gap(self) -> None:
        """Adds an empty line, unless there is one."""
        if self.lines and self.lines[-1]:
            self.lines.append("")

    def row(self, left: str, right: str, facts: str = "", indent: int = 2) -> None:
        """Adds a flag, its meaning, and facts that stay together on one line."""
        left = " " * indent + left
        room = self.width - _COLUMN
        lines = textwrap.wrap(right, room, break_long_words=False, break_on_hyphens=False)
        if facts and lines and len(lines[-1]) + len(facts) + 1 <= room:
            lines[-1] += f" {facts}"
        elif facts:
            lines += textwrap.wrap(facts, room, break_long_words=False, break_on_hyphens=False)
        if len(left) < _COLUMN:
            self.lines.append(left.ljust(_COLUMN) + lines.pop(0))
        else:
            self.lines.append(left)
        self.lines += [" " * _COLUMN + line for line in lines]

    def option(self, name: str, field: FieldInfo, indent: int = 2) -> None:
        """Adds a setting that holds one value."""
        words = choices(field.annotation)
        default = default_in_words(field)
        takes = "" if words else in_words(field)
        if default == "null":
            takes = takes.removesuffix(" or null")
        facts = [takes, "required" if default is None else f"default {default}"]
        flag = f"--{name} {{{','.join(words)}}}" if words else f"--{name}"
        self.row(flag, field.description or "", f"[{'; '.join(filter(None, facts))}]", indent)

    def shown_at(self, stages: tuple[type[Stage], ...], name: str) -> str | None:
        """Returns the key under which these options already stand; remembers them if new."""
        before = self._shown.get(stages)
        self._shown.setdefault(stages, name)
        return before


def _introduction(
    page: _Page, description: str, switches: Mapping[str, str], stages: Sequence[str]
) -> None:
    page.gap()
    page.text(description)
    page.gap()
    page.row("--config FILE", "settings as YAML; given twice, the later file wins")
    for name, meaning in switches.items():
        page.row(f"--{name}", meaning)
    page.row("--print_config", "print all settings as YAML, ready for --config, and exit")
    about = f"this page, or one stage of it: {', '.join(stages)}" if stages else "this page"
    page.row("--help [STAGE]" if stages else "--help", about)
    page.gap()
    page.text(
        "Every key below is a flag and, nested at its dots, a key of the YAML file; flags win over "
        "the file. Write null for nothing, true or false, lists as 0,1,2 or JSON. With another "
        "`kind`, the options that only the old kind has are dropped."
    )


def _section(page: _Page, name: str, field: FieldInfo) -> None:
    options = stages_in(field.annotation)
    if "" in options:
        page.title(name, options[""].__doc__ or "")
        _settings(page, options[""], f"{name}.", indent=2)
    else:
        page.title(name, "")
        _variants(page, name, field, options, indent=2)


def _settings(
    page: _Page, stage: type[Stage], prefix: str, indent: int, without: Collection[str] = ()
) -> None:
    for name, field in stage.model_fields.items():
        if name != "kind" and name not in without:
            _setting(page, prefix + name, field, indent)


def _setting(page: _Page, name: str, field: FieldInfo, indent: int) -> None:
    options = stages_in(field.annotation)
    if not options:
        page.option(name, field, indent)
    elif "" in options:
        page.gap()
        page.text(f"{name}: {field.description or ''}", indent)
        _settings(page, options[""], f"{name}.", indent + 2)
        page.gap()
    else:
        _variants(page, name, field, options, indent)


def _variants(
    page: _Page, name: str, field: FieldInfo, options: Mapping[str, type[Stage]], indent: int
) -> None:
    default: Any = None if field.is_required() else field.get_default(call_default_factory=True)
    fact = "required" if field.is_required() else f"default {getattr(default, 'kind', 'null')}"
    kinds = f"--{name}.kind {{{','.join(options)}}}"
    page.gap()
    if len(kinds) + indent <= page.width:
        page.row(kinds, field.description or "", f"[{fact}]", indent)
    else:
        page.row(f"--{name}.kind KIND", field.description or "", f"[{fact}]", indent)
        page.text(f"KIND is one of {', '.join(options)}", indent + 2)
    stages = tuple(dict.fromkeys(options.values()))
    before = page.shown_at(stages, name)
    if before is not None:
        page.text(f"with the options of --{before}", indent + 2)
        page.gap()
        return
    shared = _shared(stages)
    if shared:
        page.text("every kind:", indent + 2)
        for inner in shared:
            _setting(page, f"{name}.{inner}", stages[0].model_fields[inner], indent + 4)
    for stage in stages:
        named = [kind for kind, option in options.items() if option is stage]
        page.text(f"{', '.join(named)}: {' '.join((stage.__doc__ or '').split())}", indent + 2)
        _settings(page, stage, f"{name}.", indent + 4, without=shared)
    page.gap()


def _shared(stages: Sequence[type[Stage]]) -> list[str]:
    """Returns the options that several variants all have, with the same meaning."""
    first, *others = stages
    return [
        name
        for name, field in first.model_fields.items()
        if others and all(repr(other.model_fields.get(name)) == repr(field) for other in others)
    ]
