"""Reads the command line: every key of a model is a flag `--stage.key VALUE`."""

import argparse
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from pydantic import create_model
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, CliSettingsSource
from pydantic_settings.exceptions import SettingsError

from adakd_jax.config.overlay import overlay
from adakd_jax.config.report import Given, Path, Problem
from adakd_jax.config.schema import all_keys, closest, in_words
from adakd_jax.config.stage import Stage

COMMAND_LINE = "command line"
NULL = "null"


class Arguments(NamedTuple):
    """A command line taken apart; `values` are nested like YAML, `origins` name their flags."""

    files: list[str]
    switches: dict[str, bool]
    help_topic: str | None
    values: dict[str, Any]
    origins: dict[Path, str]
    problems: list[Problem]


class _Tokens(NamedTuple):
    pairs: list[tuple[str, str]]
    seen: set[str]
    problems: list[Problem]


def read_flags(
    model: type[Stage],
    argv: Sequence[str],
    *,
    switches: Sequence[str] = (),
    positionals: Sequence[str] = (),
) -> Arguments:
    """Reads `argv`; nothing is raised, what is wrong stands in `problems`.

    Args:
      model: the keys that are flags, each of which takes one value.
      argv: the arguments after the program's name.
      switches: names of further flags, which take no value.
      positionals: keys of the model that the arguments without a flag fill, in order; one that
        holds a list takes all that follow.
    """
    fields = {key.name: key.field for key in all_keys(model)}
    topic, argv = _take_help(argv)
    tokens = _split(argv, fields, switches, positionals)
    values, problems = _parse(model, fields, tokens.pairs)
    flags = {name for name, _ in tokens.pairs}
    return Arguments(
        files=[value for name, value in tokens.pairs if name == "config"],
        switches={name: name in tokens.seen for name in switches},
        help_topic=topic,
        values=values,
        origins=_origins(values, flags),
        problems=tokens.problems + problems,
    )


def _take_help(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Takes `--help [STAGE]` out; the topic is '' for the whole page."""
    rest = list(argv)
    for flag in ("--help", "-h"):
        if flag in rest:
            at = rest.index(flag)
            topic = rest[at + 1] if at + 1 < len(rest) and rest[at + 1][:1] != "-" else ""
            return topic, rest
    return None, rest


def _split(
    argv: Sequence[str],
    fields: Mapping[str, FieldInfo],
    switches: Sequence[str],
    positionals: Sequence[str],
) -> _Tokens:
    tokens = _Tokens([], set(), [])
    queue, free = list(argv), list(positionals)
    while queue:
        token = queue.pop(0)
        name, equals, value = token.removeprefix("--").partition("=")
        if not token.startswith("--"):
            if free:
                tokens.pairs.append((free[0], token))
                if not in_words(fields[free[0]]).startswith("list"):
                    free.pop(0)
            else:
                given = (Given("", token, COMMAND_LINE),)
                problem = Problem(token, "is not a flag", given, "flags of the form --KEY VALUE")
                tokens.problems.append(problem)
        elif name in switches and not equals:
            tokens.seen.add(name)
        elif equals or (queue and not queue[0].startswith("--")):
            value = value if equals else queue.pop(0)
            if name in fields or name == "config":
                tokens.pairs.append((name, value))
            else:
                tokens.problems.append(_unknown_flag(name, value, [*fields, *switches, "config"]))
        elif name in fields or name == "config":
            words = in_words(fields[name]) if name in fields else "path of a YAML file"
            tokens.problems.append(Problem(token, "needs a value", (), words))
        else:
            tokens.problems.append(_unknown_flag(name, "", [*fields, *switches, "config"]))
    return tokens


def _unknown_flag(name: str, value: str, known: Sequence[str]) -> Problem:
    last = name.rsplit(".", 1)[-1]
    same_ending = [flag for flag in dict.fromkeys(known) if flag.rsplit(".", 1)[-1] == last]
    near = closest(name, known)
    meant = [near] if near else same_ending
    hint = f"did you mean {' or '.join(f'--{flag}' for flag in meant)}? " if meant else ""
    given = (Given(name, value, COMMAND_LINE),) if value else ()
    return Problem(f"--{name}", "unknown flag", given, f"{hint}--help lists all flags")


def _parse(
    model: type[Stage], fields: Mapping[str, FieldInfo], pairs: Sequence[tuple[str, str]]
) -> tuple[dict[str, Any], list[Problem]]:
    """Has pydantic-settings turn flags into nested values; text is converted at validation."""
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        if name != "config":
            given.setdefault(name, []).append(value)
    values: dict[str, Any] = {}
    problems = []
    # Stages given as JSON come before flags inside them, which are closer to what is meant.
    for name, texts in sorted(given.items(), key=lambda item: item[0].count(".")):
        if texts[-1] == NULL:
            # pydantic-settings cannot read it where the key holds a mapping.
            values = overlay(model, values, _nested(name, None))
            continue
        try:
            values = overlay(model, values, _read(model, name, texts))
        except SettingsError as error:
            words = in_words(fields[name])
            form = "0,1,2 or JSON" if words.startswith("list") else "JSON"
            message = f"cannot be read: {error.__cause__ or error}"
            problems.append(
                Problem(
                    name, message, (Given(name, texts[-1], f"--{name}"),), f"{words}, as {form}"
                )
            )
    return values, problems


def _read(model: type[Stage], name: str, texts: Sequence[str]) -> dict[str, Any]:
    """Has pydantic-settings read one flag, which may be that of a stage held in part."""
    first, _, rest = name.partition(".")
    if rest and first in model.settings_of:
        return {first: _read(model.settings_of[first], rest, texts)}
    # A value that starts with a dash is safe only behind an equals sign.
    return _source(model)(args=[f"--{name}={text}" for text in texts])()


@cache
def _source(model: type[Stage]) -> CliSettingsSource:
    """Makes the reader of a model's flags; each call of it starts afresh."""
    bases: Any = (model, BaseSettings)
    settings: Any = create_model("Settings", __base__=bases)
    return CliSettingsSource(
        settings,
        root_parser=argparse.ArgumentParser(allow_abbrev=False, add_help=False),
        cli_parse_none_str=NULL,
    )


def _nested(name: str, value: Any) -> dict[str, Any]:
    """Returns the value under its dotted name: {'a': {'b': value}} for 'a.b'."""
    first, _, rest = name.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _origins(values: Mapping[str, Any], flags: set[str], prefix: Path = ()) -> dict[Path, str]:
    """Returns the flag that gave each value: its own, or that of a stage given as JSON."""
    origins: dict[Path, str] = {}
    for name, value in values.items():
        path = (*prefix, name)
        longest_first = (".".join(map(str, path[:end])) for end in range(len(path), 0, -1))
        flag = next((flag for flag in longest_first if flag in flags), None)
        if flag is not None:
            origins[path] = f"--{flag}"
        if isinstance(value, Mapping):
            origins.update(_origins(value, flags, path))
    return origins
