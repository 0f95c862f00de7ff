"""Qwen2 and 2.5 (arXiv 2407.10671): biases of queries, keys and values."""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import Gguf
from adakd_jax.models.hf_config import read_common, read_windows
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import LAYER_TYPES


def _read(hf: HFConfig) -> DecoderConfig:
    return dataclasses.replace(read_common(hf), windows=qwen_windows(hf), qkv_bias=True)


def qwen_windows(hf: HFConfig) -> tuple[int | None, ...]:
    """Windows, where they are switched on, from a layer on."""
    layers = hf["num_hidden_layers"]
    if not hf.get("use_sliding_window", False):
        return (None,) * layers
    first = hf.get("max_window_layers", 28)
    kinds = [LAYER_TYPES[layer >= first] for layer in range(layers)]
    return read_windows(hf, hf.get("layer_types") or kinds)


FAMILY = Family(
    "qwen2",
    "Qwen2ForCausalLM",
    _read,
    gguf=Gguf("qwen2", {"hidden_act": "silu", "use_sliding_window": False}),
)
