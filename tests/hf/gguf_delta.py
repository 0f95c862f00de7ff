"""Tiny Qwen3-Next and Qwen3.5, in the layout of llama.cpp's converter."""

from typing import Any

import numpy as np

from adakd_jax.models.config import DeltaNetSizes
from tests.hf.tiny import TINY_QWEN3_5

# Three heads of values to each of two heads of keys.
SIX_HEADS = TINY_QWEN3_5 | {"linear_num_value_heads": 6, "partial_rotary_factor": 0.75}
TINY_QWEN3_NEXT = SIX_HEADS | {
    "model_type": "qwen3_next",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
}
# Metadata after the architecture's name.
_DELTA = {
    "rope.dimension_count": 6,
    "full_attention_interval": 3,
    "ssm.conv_kernel": 4,
    "ssm.state_size": 4,
    "ssm.group_count": 2,
    "ssm.time_step_rank": 6,
    "ssm.inner_size": 24,
}
QWEN3_5_EXTRA: dict[str, Any] = _DELTA | {"rope.dimension_sections": [1, 1, 1, 0]}
QWEN3_NEXT_EXTRA: dict[str, Any] = _DELTA | {
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_feed_forward_length": 16,
    "expert_shared_feed_forward_length": 24,
}


def as_converted(
    written: dict[str, np.ndarray], family: str, sizes: DeltaNetSizes
) -> dict[str, np.ndarray]:
    """The tensors as the converter has them when it looks up their names in llama.cpp."""
    found = {}
    for name, tensor in written.items():
        if "in_proj_qkvz" in name:
            mixed, gates = _apart(tensor, sizes)
            found[name.replace("qkvz", "qkv")] = mixed
            found[name.replace("qkvz", "z")] = gates
            continue
        if family == "qwen3_5_text" and "linear_attn." in name:
            tensor = _tiled(name, tensor, sizes)
        if name.endswith("A_log"):
            tensor = -np.exp(tensor)
        elif "conv1d" in name:
            tensor = tensor.squeeze()
        elif name.endswith("norm.weight") and "linear_attn" not in name:
            tensor = tensor + 1
        found[name.replace("dt_bias", "dt_proj.bias")] = tensor
    return found


def _apart(tensor: np.ndarray, sizes: DeltaNetSizes) -> tuple[np.ndarray, np.ndarray]:
    """Queries of all heads, keys of all and values of all; and gates of all."""
    values = sizes.value_heads // sizes.key_heads * sizes.value_dim
    ends = np.cumsum([sizes.key_dim, sizes.key_dim, values])
    by_head = tensor.reshape(sizes.key_heads, -1, tensor.shape[-1])
    *mixed, gates = (part.reshape(-1, tensor.shape[-1]) for part in np.split(by_head, ends, axis=1))
    return np.concatenate(mixed), gates


def _tiled(name: str, tensor: np.ndarray, sizes: DeltaNetSizes) -> np.ndarray:
    """The first head of values of each head of keys, then the second of each, and so on."""
    each = sizes.value_heads // sizes.key_heads
    order = [key * each + n for n in range(each) for key in range(sizes.key_heads)]
    one_each = name.endswith(("in_proj_a.weight", "in_proj_b.weight", "A_log", "dt_bias"))
    dim = 1 if one_each else sizes.value_dim
    rows = np.concatenate([np.arange(head * dim, (head + 1) * dim) for head in order])
    if name.endswith("out_proj.weight"):
        return tensor[:, rows]
    if "in_proj_qkv" in name or "conv1d" in name:
        first = 2 * sizes.key_heads * sizes.key_dim
        return np.concatenate([tensor[:first], tensor[first:][rows]])
    return tensor if name.endswith("norm.weight") else tensor[rows]
