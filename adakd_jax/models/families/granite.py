"""Granite 3, dense (IBM 2024): Llama with four multipliers."""

import dataclasses
from typing import Any

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families.llama import halves_from_pairs
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import Gguf, Metadata
from adakd_jax.models.hf_config import read_common
from adakd_jax.models.hf_values import HFConfig, shortest_decimal

# By llama.cpp's names.
_MULTIPLIERS = {
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "attention.scale": "attention_multiplier",
    "logit_scale": "logits_scaling",
}


def read_granite(hf: HFConfig) -> DecoderConfig:
    """What Granite 3 and 4 share."""
    bias = hf.get("attention_bias", False)
    return dataclasses.replace(
        read_common(hf),
        qkv_bias=bias,
        out_bias=bias,
        ffw_bias=hf.get("mlp_bias", False),
        embed_scale=hf.get("embedding_multiplier", 1.0),
        attention_scale=hf.get("attention_multiplier", 1.0),
        residual_scale=hf.get("residual_multiplier", 1.0),
        logit_scale=1.0 / hf.get("logits_scaling", 1.0),
    )


def _read_gguf(metadata: Metadata, config: HFConfig) -> dict[str, Any]:
    return {
        name: shortest_decimal(metadata[f"granite.{key}"]) for key, name in _MULTIPLIERS.items()
    }


FAMILY = Family(
    "granite",
    "GraniteForCausalLM",
    read_granite,
    gguf=Gguf(
        "granite",
        {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
        read=_read_gguf,
        restore=halves_from_pairs,
    ),
)
