"""Lays settings over others: later ones win, and a new kind drops the options of the old one."""

from collections.abc import Mapping
from typing import Any

from adakd_jax.config.stage import Stage, chosen_stage, stages_in

Values = Mapping[str, Any]


def overlay(stage: type[Stage], lower: Values, upper: Values) -> dict[str, Any]:
    """Returns `lower` with the values of `upper` put over it, stage by stage.

    Where `upper` chooses another `kind` of a variant, the options that the old kind has and the
    new one lacks are dropped from `lower`; shared ones stay. An option that neither has stays too,
    to be reported as unknown.
    """
    merged = dict(lower)
    for name, new in upper.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            field = stage.model_fields.get(name)
            annotation = stage.settings_of.get(name) or (field.annotation if field else None)
            merged[name] = _overlay_variant(annotation, old, new)
        else:
            merged[name] = new
    return merged


def _overlay_variant(annotation: Any, old: Values, new: Values) -> dict[str, Any]:
    before = chosen_stage(annotation, old)
    after = chosen_stage(annotation, {**old, **new})
    if after is None:
        return {**old, **new}
    if before is not None and before is not after:
        foreign = before.model_fields.keys() - after.model_fields.keys()
        old = {name: value for name, value in old.items() if name not in foreign}
    return overlay(after, old, new)


def with_default_kinds(stage: type[Stage], values: Values) -> dict[str, Any]:
    """Returns `values` where a variant given without its `kind` has that of the default.

    `focus: {min_ratio: 0.2}` thus adjusts the default focus. What the default sets besides its
    kind holds as well, as long as the kind stays the default's.
    """
    filled = dict(values)
    for name, value in values.items():
        field = stage.model_fields.get(name)
        if field is None or not isinstance(value, Mapping) or not stages_in(field.annotation):
            continue
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Stage):
            kind = getattr(default, "kind", None)
            if value.get("kind", kind) == kind:
                value = {**default.model_dump(exclude_unset=True), **value}
                value = value if kind is None else {"kind": kind, **value}
        inner = chosen_stage(field.annotation, value)
        filled[name] = dict(value) if inner is None else with_default_kinds(inner, value)
    return filled
