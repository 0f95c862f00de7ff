"""What a config.json says of rotary positions, in the keys of transformers 4, 5 or both.

Where both are there and contradict one another, transformers 5 decides: `rope_scaling` goes before
`rope_parameters`, and what stands in either before `rope_theta` and `rope_local_base_freq`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from adakd_jax.models.config import Rope
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_kinds import read_kind, rope_type

GLOBAL, LOCAL = LAYER_TYPES = ("full_attention", "sliding_attention")


class Theta(NamedTuple):
    """The key of a base θ outside `rope_parameters`, None where it has none, and its default."""

    key: str | None = "rope_theta"
    default: float = 10_000.0


_THETA = Theta()


@dataclass(frozen=True)
class RopeKeys:
    """How the config.json of a family states its rotary positions.

    Attributes:
        theta: of all layers, or of those that see everything.
        local: of the layers with a window, whose `rope_parameters` are a set of their own; None:
            all layers have the same.
        partial: the share of a head that is rotated by default; None: always all of it.
        partial_key: its key outside `rope_parameters`.
        older: whether transformers 4 has the family, whose keys are then written too.
    """

    theta: Theta = _THETA
    local: Theta | None = None
    partial: float | None = None
    partial_key: str = "partial_rotary_factor"
    older: bool = True

    @property
    def thetas(self) -> dict[str, Theta]:
        """By layer type, or those of all layers as `full_attention`."""
        return {GLOBAL: self.theta} | ({} if self.local is None else {LOCAL: self.local})


ROPE_KEYS = RopeKeys()


def read_ropes(hf: HFConfig, keys: RopeKeys) -> tuple[Rope, ...]:
    """The rotation of all layers, or one of each of `LAYER_TYPES`.

    Raises:
        ValueError: a type or a key that is not supported, or one that is missing.
    """
    sets = _sets(hf, keys)
    if keys.local is None:
        given = [kind for kind in LAYER_TYPES if kind in sets[GLOBAL]]
        if given:
            raise ValueError(
                f"rotary positions by layer type ({', '.join(given)}) are not supported for "
                f"{hf.get('model_type')}; valid: one set of rope_parameters"
            )
    for parameters in sets.values():
        _check_partial(parameters, hf, keys)
    return tuple(read_kind(parameters, hf) for parameters in sets.values())


def read_rotary_dim(hf: HFConfig, keys: RopeKeys, head_dim: int) -> int | None:
    """How many numbers of a head are rotated; None: all."""
    if keys.partial is None:
        return None
    rotated = int(head_dim * _sets(hf, keys)[GLOBAL]["partial_rotary_factor"])
    return None if rotated == head_dim else rotated


def _check_partial(parameters: HFConfig, hf: HFConfig, keys: RopeKeys) -> None:
    share = parameters.get("partial_rotary_factor")
    if share is None and rope_type(parameters) != "default":
        share = hf.get(keys.partial_key)
    if share is None:
        return
    if keys.partial is None and share != 1.0:
        raise ValueError(
            f"partial_rotary_factor {share} is not supported for {hf.get('model_type')}; valid: 1.0"
        )
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError(f"partial_rotary_factor is {share!r}, valid: a number in (0, 1]")


def rope_remark(hf: HFConfig, keys: RopeKeys) -> str | None:
    """One sentence on what is not read where keys contradict one another; None if all agree."""
    read, lost = merged_rope(hf, keys), []
    by_type = {GLOBAL: read} if keys.local is None else read
    scaling, given = hf.get("rope_scaling"), hf.get("rope_parameters")
    unscaled = merged_rope(_without(hf, "rope_scaling"), keys)
    not_by_type = given and keys.local and not set(given) & set(LAYER_TYPES)
    if given and (read != unscaled or not_by_type):
        lost.append("rope_parameters")
    if scaling and by_type[GLOBAL] != by_type[GLOBAL] | _settled(scaling, keys):
        lost.append("rope_scaling")
    for kind, parameters in by_type.items():
        key = keys.thetas[kind].key
        if key and hf.get(key) is not None and hf[key] != parameters["rope_theta"]:
            lost.append(key)
    if not lost:
        return None
    return (
        f"its keys of rotary positions contradict one another: as in transformers, {read} is read, "
        f"and not all of {', '.join(lost)}"
    )


def merged_rope(hf: HFConfig, keys: RopeKeys) -> dict[str, Any]:
    """The `rope_parameters` that transformers 5 makes of all keys, by layer type where it does."""
    sets = {kind: _settled(each, keys) for kind, each in _sets(hf, keys).items()}
    return sets[GLOBAL] if keys.local is None else sets


def without_contradictions(hf: HFConfig, keys: RopeKeys) -> dict[str, Any]:
    """The same configuration, with `rope_parameters` alone where its keys contradict."""
    if rope_remark(hf, keys) is None:
        return dict(hf)
    outside = [theta.key for theta in keys.thetas.values() if theta.key]
    settled = _without(hf, "rope_scaling", *outside)
    return settled | {"rope_parameters": merged_rope(hf, keys)}


def _without(hf: HFConfig, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in hf.items() if key not in keys}


def _sets(hf: HFConfig, keys: RopeKeys) -> dict[str, dict[str, Any]]:
    """The set of each layer type, or of all layers as `full_attention`."""
    if keys.local is None:
        parameters = dict(hf.get("rope_scaling") or hf.get("rope_parameters") or {})
        return {GLOBAL: _completed(parameters, hf, keys, keys.theta)}
    return _of_layer_types(hf, keys)


def _of_layer_types(hf: HFConfig, keys: RopeKeys) -> dict[str, dict[str, Any]]:
    """As transformers does it, a set that is not by layer type is not read at all; and
    `rope_scaling`, of full attention, changes only what it names.
    """
    given = hf.get("rope_parameters") or {}
    found = {}
    for kind, theta in keys.thetas.items():
        own = given.get(kind)
        if own is not None and not isinstance(own, Mapping):
            raise ValueError(f"config.json: rope_parameters.{kind} is {own!r}, valid: an object")
        parameters = dict(own or {"rope_type": "default"})
        if kind == GLOBAL:
            parameters |= hf.get("rope_scaling") or {}
        found[kind] = _completed(parameters, hf, keys, theta)
    return found


def _completed(
    parameters: dict[str, Any], hf: HFConfig, keys: RopeKeys, theta: Theta
) -> dict[str, Any]:
    parameters.setdefault("rope_type", parameters.get("type", "default"))
    if parameters.get("rope_theta") is None:
        parameters["rope_theta"] = (hf.get(theta.key) if theta.key else None) or theta.default
    if keys.partial is not None and parameters.get("partial_rotary_factor") is None:
        share = hf.get(keys.partial_key)
        parameters["partial_rotary_factor"] = keys.partial if share is None else share
    return parameters


def _settled(parameters: Mapping[str, Any], keys: RopeKeys) -> dict[str, Any]:
    """Without what has no effect."""
    kept = {key: value for key, value in parameters.items() if key != "type"}
    if rope_type(parameters) == "default":
        effective = {"rope_theta"} | ({"partial_rotary_factor"} if keys.partial else set())
        kept = {key: value for key, value in kept.items() if key in effective}
    return kept | {"rope_type": rope_type(parameters)}
