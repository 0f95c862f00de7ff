"""Mistral 7B (arXiv 2310.06825): Llama with a sliding window in every layer."""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families.llama import halves_from_pairs
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import Gguf
from adakd_jax.models.hf_config import read_common, read_windows
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import LOCAL


def _read(hf: HFConfig) -> DecoderConfig:
    common = read_common(hf, default_kv_heads=8)
    return dataclasses.replace(common, windows=read_windows(hf, [LOCAL] * common.num_layers))


# Other files of Mistral say that they are Llama, which without windows is the same.
FAMILY = Family(
    "mistral",
    "MistralForCausalLM",
    _read,
    gguf=Gguf(
        "mistral3",
        {"hidden_act": "silu", "sliding_window": None},
        fits=lambda metadata: "mistral3.attention.temperature_scale" not in metadata,
        restore=halves_from_pairs,
    ),
)
