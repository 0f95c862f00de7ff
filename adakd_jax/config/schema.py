"""What may stand where: the keys of a model, and in words the values each one takes."""

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from adakd_jax.config.stage import Stage, stages_in


class Key(NamedTuple):
    """A setting: its dotted name, its field, and the kinds that have it (none: always there)."""

    name: str
    field: FieldInfo
    kinds: tuple[str, ...]


def all_keys(stage: type[Stage], prefix: str = "", kinds: tuple[str, ...] = ()) -> Iterator[Key]:
    """Yields every key of a model, stages and the options of every variant included.

    A key that several variants share is yielded once for each of them.
    """
    for name, field in stage.model_fields.items():
        yield Key(prefix + name, field, kinds)
        options = stages_in(field.annotation)
        for inner in dict.fromkeys(options.values()):
            inner_kinds = tuple(
                kind for kind, option in options.items() if kind and option is inner
            )
            yield from all_keys(inner, f"{prefix}{name}.", inner_kinds)
        if name in stage.settings_of:
            yield from all_keys(stage.settings_of[name], f"{prefix}{name}.", kinds)


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """Returns the candidate that `word` most likely meant, if any is near."""
    near = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.7)
    return near[0] if near else None


def in_words(field: FieldInfo) -> str:
    """Returns what a field accepts: 'number > 0', 'one of a, b', 'list of text or null'."""
    return _describe(field.annotation, field.metadata)


def default_in_words(field: FieldInfo) -> str | None:
    """Returns a field's default as it would stand in YAML; None if the field is required."""
    if field.is_required():
        return None
    return written(field.get_default(call_default_factory=True))


def written(value: Any) -> str:
    """Returns a value as one would write it: null, true, 0.5, 0,1,2, plain text, JSON."""
    if isinstance(value, Stage):
        value = value.model_dump(mode="json")
    if isinstance(value, tuple | list) and all(isinstance(v, int | float) for v in value):
        return ",".join(written(v) for v in value)
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, str):
        return value if value.strip() else repr(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def choices(annotation: Any) -> tuple[str, ...]:
    """Returns the words that a field takes, 'null' included; empty if it takes anything else."""
    if get_origin(annotation) is Literal:
        return tuple(written(value) for value in get_args(annotation))
    if annotation is NoneType:
        return ("null",)
    parts = [choices(part) for part in get_args(annotation)]
    found = tuple(word for words in parts for word in words)
    return found if parts and all(parts) else ()


def _describe(annotation: Any, limits: Sequence[Any]) -> str:
    words = choices(annotation)
    options = stages_in(annotation)
    if options:
        kinds = [kind for kind in options if kind]
        return f"mapping with kind one of {', '.join(kinds)}" if kinds else "mapping"
    if words and annotation is not NoneType:
        return f"one of {', '.join(words)}"
    if get_origin(annotation) is Annotated:
        base, *more = get_args(annotation)
        return _describe(base, [*limits, *more])
    if annotation is bool:
        return "true or false"
    if annotation in (int, float):
        return _number(annotation, limits)
    if annotation is str:
        return "text" if _limit(limits, "min_length") is None else "text, not empty"
    if annotation is NoneType:
        return "null"
    return _compound(annotation, limits)


def _compound(annotation: Any, limits: Sequence[Any]) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (tuple, list):
        return f"list of {_describe(parts[0], ())}"
    if origin is dict:
        return "mapping"
    if not parts:
        return "any value"
    return " or ".join(_describe(part, limits) for part in parts)


def _number(kind: type, limits: Sequence[Any]) -> str:
    above, least = _limit(limits, "gt"), _limit(limits, "ge")
    below, most = _limit(limits, "lt"), _limit(limits, "le")
    if kind is int and above is not None:
        above, least = None, above + 1
    noun = "integer" if kind is int else "number"
    low = f"({above:g}" if above is not None else f"[{least:g}" if least is not None else None
    high = f"{below:g})" if below is not None else f"{most:g}]" if most is not None else None
    if low and high:
        return f"{noun} in {low}, {high}"
    if above is not None:
        return f"{noun} > {above:g}"
    if least is not None:
        return f"{noun} ≥ {least:g}"
    if high:
        return f"{noun} < {below:g}" if below is not None else f"{noun} ≤ {most:g}"
    return noun


def _limit(limits: Iterable[Any], name: str) -> Any:
    for limit in limits:
        inner = _limit(limit.metadata, name) if isinstance(limit, FieldInfo) else None
        value = inner if inner is not None else getattr(limit, name, None)
        if value is not None and value is not PydanticUndefined:
            return value
    return None
