"""Qwen3 with mixture of experts (arXiv 2505.09388): Qwen3's layers, experts in all of them."""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import Family, expert_keys
from adakd_jax.models.gguf_family import EXPERT_SIZES, Gguf, expert_names
from adakd_jax.models.hf_config import read_common, read_windows
from adakd_jax.models.hf_experts import read_experts
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import GLOBAL, LOCAL


def _read(hf: HFConfig) -> DecoderConfig:
    common, bias = read_common(hf, default_kv_heads=4), hf.get("attention_bias", False)
    # Unlike in Qwen3, of all layers or of none.
    kind = LOCAL if hf.get("use_sliding_window", False) else GLOBAL
    return dataclasses.replace(
        common,
        ffw_dim=hf.get("moe_intermediate_size") or 768,
        windows=read_windows(hf, [kind] * common.num_layers),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm="head",
        experts=read_experts(hf, default_count=128, default_active=8, default_weight=0.001),
    )


FAMILY = Family(
    "qwen3_moe",
    "Qwen3MoeForCausalLM",
    _read,
    keys=expert_keys("mlp"),
    gguf=Gguf(
        "qwen3moe",
        # llama.cpp computes it so for all.
        {"hidden_act": "silu", "attention_bias": False, "norm_topk_prob": True},
        sizes=EXPERT_SIZES | {"moe_intermediate_size": "expert_feed_forward_length"},
        names=expert_names("mlp"),
    ),
)
