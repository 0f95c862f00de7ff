"""Qwen3-Next and Qwen3.5 in llama.cpp's files."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adakd_jax.models.families._gemma import without_one
from adakd_jax.models.gguf_family import (
    EXPERT_SIZES,
    GGUF_NAMES,
    GGUF_SIZES,
    Gguf,
    Join,
    Metadata,
    expert_names,
)
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import GLOBAL

_LAYER_TYPES = (GLOBAL, "linear_attention")
# llama.cpp computes it so for all.
_STATED = {"hidden_act": "silu", "attention_bias": False}
_SIZES = {
    "linear_num_key_heads": "ssm.group_count",
    "linear_num_value_heads": "ssm.time_step_rank",
    "linear_key_head_dim": "ssm.state_size",
    "linear_conv_kernel_dim": "ssm.conv_kernel",
}
_RANKS = {"ssm_conv1d": 3, "ffn_gate_inp_shexp": 2}
_OF_VALUE_HEADS = ("in_proj_z.weight", "in_proj_a.weight", "in_proj_b.weight", "A_log", "dt_bias")


def _names(others: Mapping[str, str]) -> dict[str, str]:
    shared = {name: own for name, own in others.items() if name != "ffn_norm"}
    return shared | {
        "post_attention_norm": "post_attention_layernorm",
        "ssm_conv1d": "linear_attn.conv1d",
        "ssm_a": "linear_attn.A_log",
        "ssm_dt": "linear_attn.dt",
        "ssm_norm": "linear_attn.norm",
        "ssm_out": "linear_attn.out_proj",
    }


def _full_name(name: str, kind: str) -> str:
    """The bias of decays is of no module."""
    return f"{name}_{kind}" if name.endswith(".dt") else f"{name}.{kind}"


def _read(metadata: Metadata, config: HFConfig) -> dict[str, Any]:
    """Kinds of layers, and the size of a head of values."""
    own, layers = f"{metadata['general.architecture']}.", config["num_hidden_layers"]
    recurrent = metadata.get(f"{own}attention.recurrent_layers")
    if recurrent is None:
        interval = metadata.get(f"{own}full_attention_interval", 4)
        recurrent = [(layer + 1) % interval != 0 for layer in range(layers)]
    elif not isinstance(recurrent, list):
        recurrent = [recurrent] * layers
    inner, heads = metadata[f"{own}ssm.inner_size"], config["linear_num_value_heads"]
    if inner % heads:
        raise ValueError(
            f"{own}ssm.inner_size is {inner}; valid: a multiple of the {heads} heads of values"
        )
    return {
        "layer_types": [_LAYER_TYPES[bool(each)] for each in recurrent[:layers]],
        "linear_value_head_dim": inner // heads,
    }


def _read_next(metadata: Metadata, config: HFConfig) -> dict[str, Any]:
    """llama.cpp takes as the width of shared experts that of feed-forwards, if a file has none."""
    width = metadata.get("qwen3next.expert_shared_feed_forward_length")
    return _read(metadata, config) | {
        "shared_expert_intermediate_size": width or config["intermediate_size"]
    }


def _restore(name: str, values: np.ndarray, config: HFConfig) -> np.ndarray:
    """llama.cpp stores −exp of the logarithms of rates, and what norms multiply by; only the norm
    in a delta net multiplies by its weight itself.
    """
    if name.endswith(".A_log"):
        return np.log(-values)
    return values if name.endswith("linear_attn.norm.weight") else without_one(name, values, config)


def _by_key_head(parts: Sequence[np.ndarray], config: HFConfig) -> np.ndarray:
    """From queries, keys and values, and gates: all rows of one head of keys, then the next's."""
    heads = config["linear_num_key_heads"]
    width = heads * config["linear_key_head_dim"]
    mixed, gates = parts
    each = (*np.split(mixed, [width, 2 * width]), gates)
    joined = np.concatenate([part.reshape(heads, -1, part.shape[-1]) for part in each], axis=1)
    return joined.reshape(-1, mixed.shape[-1])


def _restore_order(name: str, values: np.ndarray, config: HFConfig) -> np.ndarray:
    """`_restore`, and heads of values in their order.

    llama.cpp has the first of each head of keys, then the second of each, and so on.
    """
    values = _restore(name, values, config)
    own = name.rpartition("linear_attn.")[2]
    if own == "out_proj.weight":
        return _grouped(values.T, config).T
    if own in ("in_proj_qkv.weight", "conv1d.weight"):
        keys = 2 * config["linear_num_key_heads"] * config["linear_key_head_dim"]
        return np.concatenate([values[:keys], _grouped(values[keys:], config)])
    return _grouped(values, config) if own in _OF_VALUE_HEADS else values


def _grouped(rows: np.ndarray, config: HFConfig) -> np.ndarray:
    """Rows of heads of values, those of one head of keys after the other."""
    keys = config["linear_num_key_heads"]
    each = config["linear_num_value_heads"] // keys
    apart = rows.reshape(each, keys, -1, *rows.shape[1:])
    return apart.swapaxes(0, 1).reshape(rows.shape)


QWEN3_5 = Gguf(
    "qwen35",
    _STATED,
    read=_read,
    sizes=GGUF_SIZES | _SIZES,
    names=_names(GGUF_NAMES)
    | {
        "attn_qkv": "linear_attn.in_proj_qkv",
        "attn_gate": "linear_attn.in_proj_z",
        "ssm_beta": "linear_attn.in_proj_b",
        "ssm_alpha": "linear_attn.in_proj_a",
    },
    full_name=_full_name,
    ranks=_RANKS,
    restore=_restore_order,
)
_QKVZ = "linear_attn.in_proj_qkvz"
QWEN3_NEXT = Gguf(
    "qwen3next",
    _STATED | {"norm_topk_prob": True},
    read=_read_next,
    sizes=EXPERT_SIZES | _SIZES | {"moe_intermediate_size": "expert_feed_forward_length"},
    names=_names(expert_names("mlp"))
    | {
        "attn_qkv": _QKVZ,
        "attn_gate": _QKVZ,
        # Older files have it whole.
        "ssm_in": _QKVZ,
        "ssm_ba": "linear_attn.in_proj_ba",
        "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
        "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
        "ffn_up_shexp": "mlp.shared_expert.up_proj",
        "ffn_down_shexp": "mlp.shared_expert.down_proj",
    },
    full_name=_full_name,
    join=Join(("attn_qkv", "attn_gate"), 0, _by_key_head),
    ranks=_RANKS,
    restore=_restore,
)
