"""Turns everything that is wrong with a run's settings into one report for people."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from adakd_jax.config.schema import all_keys, choices, closest, in_words, written
from adakd_jax.config.stage import COMBINATION, Stage, stages_in

Path = tuple[str | int, ...]
Origins = Mapping[Path, str]
_LONGEST_VALUE = 80
_WIDTH = 100


class Given(NamedTuple):
    """A value as it was given, and where: 'configs/x.yaml:12', '--seed', 'default'."""

    key: str
    value: Any
    origin: str


class Problem(NamedTuple):
    """One mistake: the key, what is wrong, what was given, what would be valid."""

    key: str
    message: str
    given: tuple[Given, ...]
    valid: str


class _Place(NamedTuple):
    """Where an error points: the keys without variant names, and what stands there."""

    path: Path
    stage: type[Stage]
    field: FieldInfo | None


def problems_in(root: type[Stage], error: ValidationError, origins: Origins) -> list[Problem]:
    """Returns one problem per wrong key or combination, in the order of the settings."""
    found: dict[Any, Problem] = {}
    for details in error.errors(include_url=False):
        if details["type"] == COMBINATION:
            problem = _combination(root, details, origins)
            found[problem] = problem
            continue
        place = _place(root, details["loc"])
        # A value that fits no member of a union is reported once for each of them.
        if place.path in found and place.field is not None:
            before = found[place.path]
            words = in_words(place.field)
            found[place.path] = before._replace(message=f"should be {words}", valid=words)
        else:
            found[place.path] = _single(root, place, details, origins)
    return list(found.values())


def dotted(path: Path) -> str:
    """Returns 'student.layers[2]' for ('student', 'layers', 2)."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def render(prog: str, problems: Sequence[Problem]) -> str:
    """Returns the report: one block per problem."""
    count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    blocks = [f"{prog}: {count} in the settings; nothing was downloaded or started.\n"]
    blocks.extend(_block(problem) for problem in problems)
    return "\n".join(blocks)


def _place(root: type[Stage], location: Path) -> _Place:
    """Follows an error's location; names of variants and of union members are not keys."""
    stage: type[Stage] | None = root
    owner, field, path = root, None, ()
    options: Mapping[str, type[Stage]] = {}
    for part in location:
        if stage is None and part in options:
            stage = options[str(part)]
        elif stage is None and isinstance(part, int):
            path = (*path, part)
        elif stage is None:
            break  # the name of a union's member, which the value as a whole does not fit
        else:
            owner, field = stage, stage.model_fields.get(str(part))
            options = stages_in(field.annotation) if field else {}
            path, stage = (*path, part), options.get("")
    return _Place(path, owner, field)


def _single(root: type[Stage], place: _Place, error: ErrorDetails, origins: Origins) -> Problem:
    key, value = dotted(place.path), error["input"]
    given = (Given(key, value, _origin(place.path, origins)),)
    if place.field is None:
        return Problem(key, "unknown key", given, _other_key(root, place))
    words = in_words(place.field)
    if error["type"] == "missing":
        return Problem(key, "is missing", (), f"{words}; {_how_to_give(place.path, origins)}")
    if error["type"] == "union_tag_not_found":
        valid = ", ".join(stages_in(place.field.annotation))
        return Problem(f"{key}.kind", "is missing", given, f"one of {valid}")
    if error["type"] == "union_tag_invalid":
        kinds = tuple(stages_in(place.field.annotation))
        kind = value.get("kind") if isinstance(value, Mapping) else value
        here = (Given(key, kind, _origin((*place.path, "kind"), origins)),)
        valid = f"{_meant(kind, kinds)}one of {', '.join(kinds)}"
        return Problem(f"{key}.kind", "no such kind", here, valid)
    if stages_in(place.field.annotation):
        return Problem(key, "should be a mapping", given, words)
    if error["type"] == "string_type" and isinstance(value, int | float):
        return Problem(key, "should be text", given, f'{words}; in quotes: "{written(value)}"')
    if error["type"] == "string_pattern_mismatch":
        return Problem(key, "does not read as it should", given, place.field.description or words)
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "should")
    message = message.replace("String should", "should")
    valid = _meant(value, choices(place.field.annotation)) + words
    return Problem(key, message, given, valid)


def _meant(value: Any, words: Sequence[str]) -> str:
    near = closest(str(value), words)
    return f"did you mean {near}? " if near else ""


def _combination(root: type[Stage], error: ErrorDetails, origins: Origins) -> Problem:
    context = error.get("ctx", {})
    keys = list(context["given"])
    below = len(keys[0].split("."))
    prefix = _place(root, error["loc"][:-below]).path
    given = []
    for key, value in context["given"].items():
        path = (*prefix, *key.split("."))
        given.append(Given(dotted(path), value, origins.get(path, "default")))
    return Problem(given[0].key, context["message"], tuple(given), context["valid"])


def _origin(path: Path, origins: Origins) -> str:
    """Returns where a value was given; for an item of a list, where the list was."""
    if path in origins:
        return origins[path]
    if isinstance(path[-1], int):
        return _origin(path[:-1], origins)
    inside = (where for inner, where in origins.items() if inner[: len(path)] == path)
    return next(inside, "default")


def _how_to_give(path: Path, origins: Origins) -> str:
    parent = origins.get(path[:-1], "--")
    file = "" if parent.startswith("--") else f", or add it below {parent}"
    return f"give --{dotted(path)}{file}"


def _other_key(root: type[Stage], place: _Place) -> str:
    """Says which key was likely meant: a near one here, one of another kind, or one elsewhere."""
    name, wanted = dotted(place.path), str(place.path[-1])
    keys = list(all_keys(root))
    kinds = [kind for key in keys if key.name == name for kind in key.kinds]
    here = [field for field in place.stage.model_fields if field != "kind"]
    listed = f"keys here: {', '.join(here)}" if here else "this kind has no options"
    if kinds:
        return f"only with kind {' or '.join(dict.fromkeys(kinds))}; {listed}"
    near = closest(wanted, here)
    if near is not None:
        return f"did you mean {near}? {listed}"
    elsewhere = [key.name for key in keys if key.name.split(".")[-1] == wanted]
    if elsewhere:
        return f"did you mean {' or '.join(dict.fromkeys(elsewhere))}? {listed}"
    return listed


def _block(problem: Problem) -> str:
    lines = [f"  {problem.key}: {problem.message}"]
    named = len({given.key for given in problem.given}) > 1
    for row, given in enumerate(problem.given):
        label = "" if row else "given"
        value = f"{given.key} = {_short(given.value)}" if named else _short(given.value)
        lines.append(f"      {label:6} {value}  ({given.origin})")
    lines += textwrap.wrap(
        problem.valid,
        _WIDTH,
        initial_indent="      valid  ",
        subsequent_indent=" " * 13,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join([*lines, ""])


def _short(value: Any) -> str:
    text = written(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
