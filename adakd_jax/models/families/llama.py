"""Llama 1 to 3 (arXiv 2302.13971, 2407.21783), and what is built like them: SmolLM2, OpenLLaMA."""

import dataclasses

import numpy as np

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import Gguf
from adakd_jax.models.hf_config import read_common
from adakd_jax.models.hf_values import HFConfig


def _read(hf: HFConfig) -> DecoderConfig:
    bias = hf.get("attention_bias", False)
    return dataclasses.replace(
        read_common(hf), qkv_bias=bias, out_bias=bias, ffw_bias=hf.get("mlp_bias", False)
    )


def halves_from_pairs(name: str, values: np.ndarray, hf: HFConfig) -> np.ndarray:
    """Undoes llama.cpp's order of query and key rows: each head's rotated pairs side by side →
    first and second half.
    """
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return values
    queries = name.endswith("q_proj.weight")
    heads = hf["num_attention_heads" if queries else "num_key_value_heads"]
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(values.shape)


FAMILY = Family(
    "llama",
    "LlamaForCausalLM",
    _read,
    gguf=Gguf(
        "llama",
        {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
        fits=lambda metadata: not metadata.get("llama.expert_count"),
        restore=halves_from_pairs,
    ),
)
