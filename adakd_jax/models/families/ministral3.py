"""Ministral 3 (Mistral AI 2025): Mistral with YaRN, and queries that grow with their position."""

import dataclasses
from typing import Any

from adakd_jax.models.config import DecoderConfig, QueryScale
from adakd_jax.models.families.llama import halves_from_pairs
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import Gguf, Metadata
from adakd_jax.models.hf_config import read_common, read_windows
from adakd_jax.models.hf_values import HFConfig, require, shortest_decimal
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


def _read_gguf(metadata: Metadata, config: HFConfig) -> dict[str, Any]:
    own = {key.removeprefix("mistral3."): value for key, value in metadata.items()}
    return {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": config["rope_theta"],
            "factor": shortest_decimal(own["rope.scaling.factor"]),
            "original_max_position_embeddings": own["rope.scaling.original_context_length"],
            "beta_fast": shortest_decimal(own.get("rope.scaling.yarn_beta_fast", 32.0)),
            "beta_slow": shortest_decimal(own.get("rope.scaling.yarn_beta_slow", 1.0)),
            "mscale": 1.0,
            "mscale_all_dim": shortest_decimal(own["rope.scaling.yarn_log_multiplier"]),
            "llama_4_scaling_beta": shortest_decimal(own["attention.temperature_scale"]),
        }
    }


FAMILY = Family(
    "ministral3",
    "Ministral3ForCausalLM",
    _read,
    gguf=Gguf(
        "mistral3",
        {"hidden_act": "silu", "sliding_window": None},
        fits=lambda metadata: "mistral3.attention.temperature_scale" in metadata,
        read=_read_gguf,
        restore=halves_from_pairs,
    ),
)
