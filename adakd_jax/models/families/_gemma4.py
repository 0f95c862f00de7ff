"""What the layers of Gemma 4 are, by its config.json; and which layers of a model can be kept."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from adakd_jax.models.config import Experts, Mixer
from adakd_jax.models.hf_config import every
from adakd_jax.models.hf_values import HFConfig, refuse, require
from adakd_jax.models.rope_keys import GLOBAL, LAYER_TYPES, LOCAL
from adakd_jax.models.rope_kinds import read_kind, read_proportional, rope_type
from adakd_jax.models.rotations import Rope

_ROPES: dict[str, dict[str, Any]] = {
    LOCAL: {"rope_type": "default", "rope_theta": 10_000.0},
    GLOBAL: {
        "rope_type": "proportional",
        "partial_rotary_factor": 0.25,
        "rope_theta": 1_000_000.0,
    },
}
_OVERRIDES = ("head_dim", "num_key_value_heads")


class Heads(NamedTuple):
    """Numbers of a head, and heads of keys."""

    head_dim: int
    num_kv_heads: int


def read_kinds(hf: HFConfig) -> list[str]:
    """The type of each layer; as in transformers, the last one sees everything."""
    layers = hf["num_hidden_layers"]
    kinds = list(hf.get("layer_types") or every(6, layers))
    unknown = sorted(set(kinds) - set(LAYER_TYPES))
    if unknown:
        raise ValueError(
            f"layer_types {unknown} are not supported; valid: {', '.join(LAYER_TYPES)}"
        )
    if len(kinds) != layers:
        raise ValueError(f"layer_types has {len(kinds)} entries for {layers} layers")
    return [*kinds[:-1], GLOBAL]


def read_mixers(hf: HFConfig, kinds: Sequence[str]) -> tuple[Mixer, ...]:
    """What mixes the tokens of each layer. The last `num_kv_shared_layers` read the keys and values
    of the last layer of their type before them.

    Raises:
        ValueError: there is no such layer.
    """
    first = len(kinds) - (hf.get("num_kv_shared_layers") or 0)
    lacking = sorted(set(kinds[max(first, 0) :]) - set(kinds[: max(first, 0)]))
    if lacking:
        raise ValueError(
            f"config.json: num_kv_shared_layers={hf['num_kv_shared_layers']!r} leaves no layer of "
            f"type {', '.join(lacking)} whose keys and values could be read; valid: fewer"
        )
    own: dict[str, Mixer] = {LOCAL: "attn", GLOBAL: "wide"}
    reading: dict[str, Mixer] = {LOCAL: "reader", GLOBAL: "wide_reader"}
    return tuple((own if n < first else reading)[kind] for n, kind in enumerate(kinds))


def read_heads(hf: HFConfig, kinds: Sequence[str]) -> tuple[Heads, Heads]:
    """Of layers with a window, and of those that see everything. Transformers 5 writes them layer
    by layer, `per_layer_config`, published files in two keys.

    Raises:
        ValueError: layers of one type differ, or in what is not supported.
    """
    base = Heads(hf.get("head_dim") or 256, hf.get("num_key_value_heads") or 4)
    by_layer = hf.get("per_layer_config")
    if by_layer is None:
        of_global = hf.get("num_global_key_value_heads") if hf.get("attention_k_eq_v") else None
        return base, Heads(hf.get("global_head_dim") or 512, of_global or base.num_kv_heads)
    found: dict[str, Heads] = {}
    for layer, kind in enumerate(kinds):
        own = by_layer.get(str(layer)) or {}
        _check_overrides(own, layer)
        heads = Heads(*(own.get(key, size) for key, size in zip(_OVERRIDES, base, strict=True)))
        if found.setdefault(kind, heads) != heads:
            raise ValueError(
                f"config.json: per_layer_config.{layer} is {own!r}, which other layers of type "
                f"{kind} are not; valid: the same for all of them"
            )
    return found.get(LOCAL, base), found[GLOBAL]


def _check_overrides(own: Any, layer: int) -> None:
    valid = f"valid: an object of {', '.join(_OVERRIDES)}, whole numbers above 0"
    if not isinstance(own, Mapping) or not set(own) <= set(_OVERRIDES):
        raise ValueError(f"config.json: per_layer_config.{layer} is {own!r}; {valid}")
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in own.values()):
        raise ValueError(f"config.json: per_layer_config.{layer} is {own!r}; {valid}")


def read_experts_beside(hf: HFConfig) -> Experts | None:
    """Those beside the feed-forward of every layer, or None."""
    if not hf.get("enable_moe_block"):
        return None
    require(hf, "num_experts", "top_k_experts", "moe_intermediate_size")
    return Experts(
        count=hf["num_experts"],
        active=hf["top_k_experts"],
        renormalised=True,
        dim=hf["moe_intermediate_size"],
        beside_dense=True,
    )


def read_ropes(hf: HFConfig) -> tuple[Rope, Rope]:
    """Of layers with a window, and of those that see everything.

    Raises:
        ValueError: a set that is missing, or of a type that is not supported.
    """
    refuse(hf, "rope_scaling", valid="null, and rope_parameters by layer type")
    given = hf.get("rope_parameters") or _ROPES
    if set(given) != set(LAYER_TYPES):
        raise ValueError(
            f"config.json: rope_parameters has {', '.join(sorted(given))}; valid: a set each for "
            f"{', '.join(LAYER_TYPES)}"
        )
    return _read_rope(given[LOCAL], hf), _read_rope(given[GLOBAL], hf)


def _read_rope(parameters: HFConfig, hf: HFConfig) -> Rope:
    kind = rope_type(parameters)
    if kind == "proportional":
        return read_proportional(parameters)
    if kind != "default":
        raise ValueError(
            f"rope_type {kind!r} is not supported for {hf['model_type']}; valid: default, "
            "proportional"
        )
    return read_kind(parameters, hf)


def select(hf: HFConfig, layers: Sequence[int]) -> dict[str, Any]:
    """Keys of a model that keeps some layers: which of them still read, and whose heads are whose.

    Raises:
        ValueError: a layer is to be kept without the one whose keys and values it reads, or the
            last one has a window.
    """
    kinds = read_kinds(hf)
    mixers = read_mixers(hf, kinds)
    reading = [n for n in layers if mixers[n] in ("reader", "wide_reader")]
    first = len(kinds) - (hf.get("num_kv_shared_layers") or 0)
    for kind in sorted({kinds[n] for n in reading}):
        source = max(n for n in range(first) if kinds[n] == kind)
        if source not in layers:
            needing = [n for n in reading if kinds[n] == kind]
            raise ValueError(
                f"student.layers: {needing} read the keys and values of layer {source}; keep it too"
            )
    if kinds[layers[-1]] != GLOBAL:
        valid = [n for n, kind in enumerate(kinds) if kind == GLOBAL]
        raise ValueError(
            f"student.layers: the last, {layers[-1]}, has a window, which transformers takes "
            f"from the last layer of a {hf['model_type']} model; valid: one of {valid}"
        )
    kept: dict[str, Any] = {
        "num_kv_shared_layers": len(reading),
        "layer_types": [kinds[n] for n in layers],
    }
    if hf.get("per_layer_config") is not None:
        own = hf["per_layer_config"]
        kept["per_layer_config"] = {
            str(place): own[str(n)] for place, n in enumerate(layers) if str(n) in own
        }
    return kept
