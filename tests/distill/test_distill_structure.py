"""Defaults agree with the settings, every rule has a setting, and imports stay few."""

import ast
import inspect
from pathlib import Path
from typing import get_args

import pytest

import adakd_jax.distill
from adakd_jax import config
from adakd_jax.distill import DIVERGENCES, FOCI, SCORES, TEMPERATURES, idts_temperature, latf

SLOTS = {
    "score": (SCORES, config.Score),
    "focus": (FOCI, config.Focus),
    "temperature": (TEMPERATURES, config.Temperature),
    "divergence": (DIVERGENCES, config.Divergence),
}


def _settings(slot):
    """The variants of a slot by kind."""
    variants = get_args(get_args(SLOTS[slot][1])[0])
    return {variant.model_fields["kind"].default: variant for variant in variants}


def _defaults(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


@pytest.mark.parametrize("slot", sorted(SLOTS))
def test_every_rule_has_a_setting(slot):
    assert set(SLOTS[slot][0]) == set(_settings(slot))


@pytest.mark.parametrize(
    ("function", "variant"),
    [(latf, config.Latf), (idts_temperature, config.Idts)]
    + [(DIVERGENCES[kind], variant) for kind, variant in _settings("divergence").items()]
    + [(SCORES[kind].statistics, variant) for kind, variant in _settings("score").items()],
)
def test_defaults_equal_the_settings(function, variant):
    settings = {name: field.default for name, field in variant.model_fields.items()}
    defaults = _defaults(function)
    assert defaults == {name: settings[name] for name in defaults}


def test_options_of_rules_are_their_settings():
    for kind, variant in _settings("divergence").items():
        assert set(_defaults(DIVERGENCES[kind])) == set(variant.model_fields) - {"kind"}
    for kind, variant in _settings("score").items():
        assert set(_defaults(SCORES[kind].statistics)) == set(variant.model_fields) - {"kind"}


def test_imports_are_arrays_and_settings_only():
    allowed = {"jax", "jaxtyping", "optax", "collections", "functools", "math", "typing"}
    for path in Path(adakd_jax.distill.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            else:
                continue
            for name in names:
                ours = name == "adakd_jax.axes" or name.startswith(
                    ("adakd_jax.config", "adakd_jax.distill")
                )
                assert ours or name.split(".")[0] in allowed, f"{path.name} imports {name}"
