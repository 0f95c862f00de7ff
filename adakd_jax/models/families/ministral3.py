"""Ministral 3 (Mistral AI 2025): Mistral with YaRN, and queries that grow with their position."""

import dataclasses

from adakd_jax.models.config import DecoderConfig, QueryScale
from adakd_jax.models.family import Family
from adakd_jax.models.hf_config import read_common, read_windows
from adakd_jax.models.hf_values import HFConfig, require
from adakd_jax.models.rope_keys import LOCAL, ROPE_KEYS, merged_rope


def _read(hf: HFConfig) -> DecoderConfig:
    rope = merged_rope(hf, ROPE_KEYS)
    require(rope, "llama_4_scaling_beta", "original_max_position_embeddings")
    common = read_common(hf, default_kv_heads=8, default_head_dim=128, default_eps=1e-5)
    windows = (None,) * common.num_layers
    if hf.get("sliding_window") is not None:
        windows = read_windows(hf, [LOCAL] * common.num_layers)
    scale = QueryScale(rope["llama_4_scaling_beta"], rope["original_max_position_embeddings"])
    return dataclasses.replace(common, windows=windows, query_scale=scale)


FAMILY = Family("ministral3", "Ministral3ForCausalLM", _read)
