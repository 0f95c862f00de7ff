"""From one set of `rope_parameters` to its rotation, as transformers computes it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from adakd_jax.models.config import Rope
from adakd_jax.models.hf_values import HFConfig, require


def read_kind(parameters: HFConfig, hf: HFConfig) -> Rope:
    """The rotation that a set of parameters describes.

    Args:
        parameters: with `rope_type` and `rope_theta`.
        hf: the config.json they are from.

    Raises:
        ValueError: a type that is not supported, or a key that is missing or out of range.
    """
    kind = rope_type(parameters)
    if kind not in _READERS:
        raise ValueError(f"rope_type {kind!r} is not supported; valid: {', '.join(_READERS)}")
    return _READERS[kind](parameters, hf)


def rope_type(parameters: Mapping[str, Any]) -> Any:
    """The type, under its present name: Phi-3's first files call LongRoPE `su` or `yarn`."""
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    return "longrope" if kind in ("su", "yarn") and "short_factor" in parameters else kind


def read_proportional(parameters: HFConfig) -> Rope:
    """Some of the pairs turn, with the frequencies that they would have among all; for families
    that are known to have it.
    """
    share = _number(parameters, "partial_rotary_factor", 1.0)
    if share > 1:
        raise ValueError(f"partial_rotary_factor is {share!r}, valid: a number in (0, 1]")
    factor = _number(parameters, "factor", 1.0)
    return Rope(_number(parameters, "rope_theta"), "proportional", factor, share=share)


def _default(parameters: HFConfig, hf: HFConfig) -> Rope:
    return Rope(_number(parameters, "rope_theta"))


def _linear(parameters: HFConfig, hf: HFConfig) -> Rope:
    return Rope(_number(parameters, "rope_theta"), "linear", _number(parameters, "factor"))


def _dynamic(parameters: HFConfig, hf: HFConfig) -> Rope:
    return Rope(
        _number(parameters, "rope_theta"),
        "dynamic",
        _number(parameters, "factor"),
        original_positions=hf["max_position_embeddings"],
    )


def _llama3(parameters: HFConfig, hf: HFConfig) -> Rope:
    low, high = (_number(parameters, key) for key in ("low_freq_factor", "high_freq_factor"))
    if low >= high:
        raise ValueError(f"low_freq_factor {low} must be below high_freq_factor {high}")
    theta, factor = _number(parameters, "rope_theta"), _number(parameters, "factor")
    return Rope(theta, "llama3", factor, low, high, _original_positions(parameters, hf))


def _yarn(parameters: HFConfig, hf: HFConfig) -> Rope:
    original = _original_positions(parameters, hf)
    longer = hf["max_position_embeddings"] / original
    factor = _number(parameters, "factor", longer if longer > 1 else None)
    scale, scale_of_all = (parameters.get(key) for key in ("mscale", "mscale_all_dim"))
    attention = _yarn_scale(factor, 1.0)
    if scale and scale_of_all:
        attention = _yarn_scale(factor, scale) / _yarn_scale(factor, scale_of_all)
    return Rope(
        _number(parameters, "rope_theta"),
        "yarn",
        factor,
        original_positions=original,
        beta_fast=_number(parameters, "beta_fast", 32.0),
        beta_slow=_number(parameters, "beta_slow", 1.0),
        truncate=bool(parameters.get("truncate", True)),
        attention_factor=_number(parameters, "attention_factor", attention),
    )


def _yarn_scale(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _longrope(parameters: HFConfig, hf: HFConfig) -> Rope:
    original = _original_positions(parameters, hf)
    factor = _number(parameters, "factor", hf["max_position_embeddings"] / original)
    attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    short, long = (_numbers(parameters, f"{kind}_factor") for kind in ("short", "long"))
    return Rope(
        _number(parameters, "rope_theta"),
        "longrope",
        original_positions=original,
        short_factors=short,
        long_factors=long,
        attention_factor=_number(parameters, "attention_factor", attention),
    )


_READERS: dict[str, Callable[[HFConfig, HFConfig], Rope]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}


def _original_positions(parameters: HFConfig, hf: HFConfig) -> int:
    """Phi-3 has it beside the set, where it goes first; without any it is the length of now."""
    key = "original_max_position_embeddings"
    for source in (hf, parameters):
        if source.get(key) is not None:
            return int(_number(source, key))
    return hf["max_position_embeddings"]


def _number(parameters: HFConfig, key: str, default: float | None = None) -> float:
    value = parameters.get(key)
    if value is None and default is not None:
        return default
    require(parameters, key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"config.json: {key} is {value!r}, valid: a number above 0")
    return float(value)


def _numbers(parameters: HFConfig, key: str) -> tuple[float, ...]:
    require(parameters, key)
    values = parameters[key]
    if not isinstance(values, list | tuple):
        raise ValueError(f"config.json: {key} is {values!r}, valid: a list of numbers above 0")
    return tuple(_number({key: value}, key) for value in values)
