"""What a config.json says of rotary positions, in the keys of transformers 4, 5 or both.

Where both are there and contradict one another, transformers 5 decides: `rope_scaling` goes before
`rope_parameters`, and what stands in either before `rope_theta` and `rope_local_base_freq`.
"""

from collections.abc import Mapping
from typing import Any

from adakd_jax.models.config import Rope
from adakd_jax.models.hf_values import HFConfig, require

ROPE_TYPES = ("default", "linear", "llama3")
GLOBAL, LOCAL = LAYER_TYPES = ("full_attention", "sliding_attention")
_THETAS = {GLOBAL: ("rope_theta", 1_000_000.0), LOCAL: ("rope_local_base_freq", 10_000.0)}
_THETA = 10_000.0
_KEYS = ("rope_scaling", "rope_parameters", "rope_theta", "rope_local_base_freq")


def read_rope(hf: HFConfig) -> Rope:
    """The frequencies of a model whose layers all have the same.

    Raises:
        ValueError: a type or a key that is not supported, or one that is missing.
    """
    parameters = _of_all_layers(hf)
    given = [kind for kind in LAYER_TYPES if kind in parameters]
    if given:
        raise ValueError(
            f"rotary positions by layer type ({', '.join(given)}) are not supported for "
            f"{hf.get('model_type')}; valid: one set of rope_parameters"
        )
    if parameters["rope_type"] != "default" and hf.get("partial_rotary_factor") is not None:
        parameters.setdefault("partial_rotary_factor", hf["partial_rotary_factor"])
    return _rope(parameters, hf["max_position_embeddings"])


def read_ropes(hf: HFConfig) -> tuple[Rope, ...]:
    """The frequencies of each of `LAYER_TYPES`, for a family where they differ.

    Raises:
        ValueError: see `read_rope`.
    """
    by_type = _of_layer_types(hf)
    return tuple(_rope(by_type[kind], hf["max_position_embeddings"]) for kind in LAYER_TYPES)


def rope_remark(hf: HFConfig, *, by_layer_type: bool = False) -> str | None:
    """One sentence on what is not read where keys contradict one another; None if all agree.

    `by_layer_type` is the family's `ropes_by_layer_type`.
    """
    read, lost = merged_rope(hf, by_layer_type), []
    by_type = read if by_layer_type else {GLOBAL: read}
    scaling, given = hf.get("rope_scaling"), hf.get("rope_parameters")
    unscaled = merged_rope(_without(hf, "rope_scaling"), by_layer_type)
    not_by_type = given and by_layer_type and not set(given) & set(LAYER_TYPES)
    if given and (read != unscaled or not_by_type):
        lost.append("rope_parameters")
    if scaling and by_type[GLOBAL] != by_type[GLOBAL] | _settled(scaling):
        lost.append("rope_scaling")
    for kind, parameters in by_type.items():
        key, _ = _THETAS[kind]
        if hf.get(key) is not None and hf[key] != parameters["rope_theta"]:
            lost.append(key)
    if not lost:
        return None
    return (
        f"its keys of rotary positions contradict one another: as in transformers, {read} is read, "
        f"and not all of {', '.join(lost)}"
    )


def merged_rope(hf: HFConfig, by_layer_type: bool) -> dict[str, Any]:
    """The `rope_parameters` that transformers 5 makes of all keys, by layer type where it does."""
    if by_layer_type:
        return {kind: _settled(each) for kind, each in _of_layer_types(hf).items()}
    return _settled(_of_all_layers(hf))


def without_contradictions(hf: HFConfig, *, by_layer_type: bool = False) -> dict[str, Any]:
    """The same configuration, with `rope_parameters` alone where its keys contradict."""
    if rope_remark(hf, by_layer_type=by_layer_type) is None:
        return dict(hf)
    return _without(hf, *_KEYS) | {"rope_parameters": merged_rope(hf, by_layer_type)}


def _without(hf: HFConfig, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in hf.items() if key not in keys}


def _of_all_layers(hf: HFConfig) -> dict[str, Any]:
    parameters = dict(hf.get("rope_scaling") or hf.get("rope_parameters") or {})
    return _completed(parameters, hf.get("rope_theta") or _THETA)


def _of_layer_types(hf: HFConfig) -> dict[str, dict[str, Any]]:
    """As transformers does it, a set that is not by layer type is not read at all; and
    `rope_scaling`, of full attention, changes only what it names.
    """
    given = hf.get("rope_parameters") or {}
    found = {}
    for kind in LAYER_TYPES:
        own = given.get(kind)
        if own is not None and not isinstance(own, Mapping):
            raise ValueError(f"config.json: rope_parameters.{kind} is {own!r}, valid: an object")
        parameters = dict(own or {"rope_type": "default"})
        if kind == GLOBAL:
            parameters |= hf.get("rope_scaling") or {}
        key, theta = _THETAS[kind]
        found[kind] = _completed(parameters, hf.get(key) or theta)
    return found


def _completed(parameters: dict[str, Any], theta: float) -> dict[str, Any]:
    parameters.setdefault("rope_type", parameters.get("type", "default"))
    if parameters.get("rope_theta") is None:
        parameters["rope_theta"] = theta
    return parameters


def _settled(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Without what has no effect."""
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    kept = {key: value for key, value in parameters.items() if key != "type"}
    if kind == "default":
        kept = {key: value for key, value in kept.items() if key == "rope_theta"}
    return kept | {"rope_type": kind}


def _rope(parameters: HFConfig, max_positions: int) -> Rope:
    kind, factor = parameters["rope_type"], parameters.get("partial_rotary_factor")
    if kind not in ROPE_TYPES:
        raise ValueError(f"rope_type {kind!r} is not supported; valid: {', '.join(ROPE_TYPES)}")
    if factor is not None and factor != 1.0:
        raise ValueError(f"partial_rotary_factor {factor} is not supported; valid: 1.0")
    theta = _number(parameters, "rope_theta")
    if kind == "default":
        return Rope(theta)
    bounds = ("low_freq_factor", "high_freq_factor")
    require(parameters, "factor", *(bounds if kind == "llama3" else ()))
    if kind == "linear":
        return Rope(theta, kind, _number(parameters, "factor"))
    low, high = (_number(parameters, key) for key in bounds)
    if low >= high:
        raise ValueError(f"low_freq_factor {low} must be below high_freq_factor {high}")
    length = {"original_max_position_embeddings": max_positions} | dict(parameters)
    original = int(_number(length, "original_max_position_embeddings"))
    return Rope(theta, kind, _number(parameters, "factor"), low, high, original)


def _number(parameters: HFConfig, key: str) -> float:
    value = parameters[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"config.json: {key} is {value!r}, valid: a number above 0")
    return float(value)
