"""Seed-OSS (ByteDance 2025): Llama with biases of queries, keys and values."""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import GGUF_NAMES, Gguf
from adakd_jax.models.hf_config import read_common
from adakd_jax.models.hf_values import HFConfig


def _read(hf: HFConfig) -> DecoderConfig:
    return dataclasses.replace(
        read_common(hf, default_kv_heads=8, default_head_dim=128),
        qkv_bias=hf.get("attention_bias", True),
        out_bias=hf.get("attention_out_bias", False),
        ffw_bias=hf.get("mlp_bias", False),
    )


FAMILY = Family(
    "seed_oss",
    "SeedOssForCausalLM",
    _read,
    gguf=Gguf(
        "seed_oss",
        {
            "hidden_act": "silu",
            "attention_bias": True,
            "attention_out_bias": False,
            "mlp_bias": False,
        },
        names=GGUF_NAMES | {"post_attention_norm": "post_attention_layernorm"},
    ),
)
