"""Gemma 4 in llama.cpp's files."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adakd_jax.models.families._gemma import GEMMA_GGUF
from adakd_jax.models.gguf_family import GGUF_OUTSIDE, GGUF_SIZES, Gguf, Metadata
from adakd_jax.models.hf_values import HFConfig, shortest_decimal
from adakd_jax.models.rope_keys import GLOBAL, LAYER_TYPES, LOCAL

_OWN = "gemma4."
_NAMES = GEMMA_GGUF | {
    "inp_gate": "per_layer_input_gate",
    "proj": "per_layer_projection",
    "post_norm": "post_per_layer_input_norm",
    "layer_output_scale": "layer_scalar",
    "ffn_gate_inp": "router.proj",
    "ffn_gate_up_exps": "experts.gate_up_proj",
    "ffn_down_exps": "experts.down_proj",
    "pre_ffw_norm_2": "pre_feedforward_layernorm_2",
    "post_ffw_norm_1": "post_feedforward_layernorm_1",
    "post_ffw_norm_2": "post_feedforward_layernorm_2",
}
_OUTSIDE = GGUF_OUTSIDE | {
    "per_layer_token_embd": "model.embed_tokens_per_layer",
    "per_layer_model_proj": "model.per_layer_model_projection",
    "per_layer_proj_norm": "model.per_layer_projection_norm",
}
# What is no module of its own on Hugging Face, or is called after another.
_ALONE = ("layer_scalar", "experts.gate_up_proj", "experts.down_proj")
_SCALES = {"router.proj": "router.scale", "experts.down_proj": "router.per_expert_scale"}
# What a pair of numbers that does not turn has its frequency divided by.
_STILL = 1e30


def _full_name(name: str, kind: str) -> str:
    if kind == "scale":
        own = next((own for own in _SCALES if name.endswith(own)), None)
        return f"{name}.{kind}" if own is None else name.removesuffix(own) + _SCALES[own]
    return name if name.endswith(_ALONE) else f"{name}.{kind}"


def _read(metadata: Metadata, config: HFConfig) -> dict[str, Any]:
    own = {key.removeprefix(_OWN): value for key, value in metadata.items() if key.startswith(_OWN)}
    layers, shared = config["num_hidden_layers"], own.get("attention.shared_kv_layers", 0)
    pattern = own.get("attention.sliding_window_pattern")
    if not isinstance(pattern, list) or len(pattern) != layers:
        raise ValueError(
            f"{_OWN}attention.sliding_window_pattern is {pattern!r}; valid: true or false for each "
            f"of {layers} layers"
        )
    found: dict[str, Any] = {
        "layer_types": [LAYER_TYPES[bool(local)] for local in pattern],
        "num_kv_shared_layers": shared,
        "head_dim": own["attention.key_length_swa"],
        "global_head_dim": own["attention.key_length"],
        "hidden_size_per_layer_input": own.get("embedding_length_per_layer_input", 0),
        "sliding_window": own["attention.sliding_window"],
        **_read_widths(own["feed_forward_length"], layers - shared),
        **_read_kv_heads(own["attention.head_count_kv"], pattern),
    }
    if "final_logit_softcapping" in own:
        found["final_logit_softcapping"] = shortest_decimal(own["final_logit_softcapping"])
    if own.get("expert_count"):
        found |= {
            "enable_moe_block": True,
            "num_experts": own["expert_count"],
            "top_k_experts": own["expert_used_count"],
            "moe_intermediate_size": own["expert_feed_forward_length"],
        }
    return found | {"rope_parameters": _read_thetas(own)}


def _read_widths(widths: Any, first: int) -> dict[str, Any]:
    """Of feed-forwards: one number, or one for each layer; `first` is the first layer that reads
    the keys and values of another.
    """
    if not isinstance(widths, list):
        return {"intermediate_size": widths}
    width = widths[0]
    readers = len(widths) - first
    if widths not in ([width] * len(widths), [width] * first + [2 * width] * readers):
        raise ValueError(
            f"{_OWN}feed_forward_length is {widths}; valid: {width}, or that and twice as much "
            f"from layer {first} on"
        )
    return {"intermediate_size": width, "use_double_wide_mlp": widths[-1] != width}


def _read_kv_heads(heads: Any, pattern: list[bool]) -> dict[str, Any]:
    """Heads of keys: one number, or one for each layer."""
    if not isinstance(heads, list):
        return {"num_key_value_heads": heads}
    by_kind = {
        bool(local): {n for n, own in zip(heads, pattern, strict=True) if bool(own) == bool(local)}
        for local in pattern
    }
    if any(len(counts) > 1 for counts in by_kind.values()):
        raise ValueError(
            f"{_OWN}attention.head_count_kv is {heads}; valid: a number for the layers with a "
            "window, and one for those without"
        )
    of_global = next(iter(by_kind.get(False, {heads[0]})))
    of_local = next(iter(by_kind.get(True, {of_global})))
    return {"num_key_value_heads": of_local, "num_global_key_value_heads": of_global}


def _read_thetas(own: Metadata) -> dict[str, Any]:
    bases = {GLOBAL: own["rope.freq_base"], LOCAL: own.get("rope.freq_base_swa", 10_000.0)}
    return {
        kind: {"rope_type": "default", "rope_theta": shortest_decimal(base)}
        for kind, base in bases.items()
    }


def _look(
    config: HFConfig, shapes: Mapping[str, tuple[int, ...]], divisors: np.ndarray | None
) -> dict[str, Any]:
    """Whether values are keys, the rows of the table of inputs, and which pairs turn."""
    found: dict[str, Any] = {
        "attention_k_eq_v": any(
            f"blk.{n}.attn_k.weight" in shapes and f"blk.{n}.attn_v.weight" not in shapes
            for n, kind in enumerate(config["layer_types"])
            if kind == GLOBAL
        )
    }
    if "per_layer_token_embd.weight" in shapes:
        found["vocab_size_per_layer_input"] = shapes["per_layer_token_embd.weight"][0]
    if divisors is None:
        return found
    turning = int(np.sum(divisors == 1.0))
    still = np.asarray(divisors[turning:], np.float64)
    if not turning or np.any(divisors[:turning] != 1.0) or np.any(still < _STILL * 0.99):
        raise ValueError("rope_freqs.weight is no rotation of the first pairs of a head alone")
    whole = config["rope_parameters"][GLOBAL] | {
        "rope_type": "proportional",
        "partial_rotary_factor": turning / len(divisors),
    }
    return found | {"rope_parameters": config["rope_parameters"] | {GLOBAL: whole}}


GGUF = Gguf(
    "gemma4",
    {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False},
    read=_read,
    look=_look,
    sizes={key: own for key, own in GGUF_SIZES.items() if key != "intermediate_size"},
    states_heads=False,
    rotates=False,
    outside=_OUTSIDE,
    names=_NAMES,
    full_name=_full_name,
    transposes_experts=False,
)
