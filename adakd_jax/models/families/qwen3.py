"""Qwen3, dense (arXiv 2505.09388): norms of queries and keys."""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families.qwen2 import qwen_windows
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import Gguf
from adakd_jax.models.hf_config import read_common
from adakd_jax.models.hf_values import HFConfig


def _read(hf: HFConfig) -> DecoderConfig:
    common = read_common(hf, default_head_dim=128)
    bias = hf.get("attention_bias", False)
    return dataclasses.replace(
        common, windows=qwen_windows(hf), qkv_bias=bias, out_bias=bias, qk_norm="head"
    )


FAMILY = Family(
    "qwen3",
    "Qwen3ForCausalLM",
    _read,
    gguf=Gguf(
        "qwen3", {"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False}
    ),
)
