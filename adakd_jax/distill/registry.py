"""How a slot's rules are found by name."""

from collections.abc import Mapping
from typing import Any, TypeVar

from adakd_jax.config.stage import Stage

Rule = TypeVar("Rule")


def choose(rules: Mapping[str, Rule], slot: str, name: str) -> Rule:
    """Return the rule called `name`; ValueError names the valid ones."""
    if name not in rules:
        raise ValueError(f"unknown {slot} {name!r}: valid names are {', '.join(sorted(rules))}")
    return rules[name]


def options_of(stage: Stage) -> dict[str, Any]:
    """Return a rule's settings as the keyword arguments of its function."""
    return stage.model_dump(exclude={"kind"})
