"""Gemma 3, text (arXiv 2503.19786): five layers with a window to one without, each kind with
rotary frequencies of its own, norms of queries and keys.
"""

import dataclasses
from typing import Any

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families._gemma import GEMMA_GGUF, GEMMA_KEYS, read_gemma, without_one
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import Gguf, Metadata
from adakd_jax.models.hf_config import every, read_windows
from adakd_jax.models.hf_values import HFConfig, shortest_decimal
from adakd_jax.models.rope_keys import LAYER_TYPES, RopeKeys, Theta

_ROPE = RopeKeys(
    theta=Theta(default=1_000_000.0), local=Theta("rope_local_base_freq", default=10_000.0)
)


def _read(hf: HFConfig) -> DecoderConfig:
    gemma = read_gemma(hf, rope=_ROPE)
    kinds = hf.get("layer_types") or every(hf.get("sliding_window_pattern", 6), gemma.num_layers)
    return dataclasses.replace(
        gemma,
        windows=read_windows(hf, kinds),
        layer_ropes=tuple(LAYER_TYPES.index(kind) for kind in kinds),
        attention_soft_cap=hf.get("attn_logit_softcapping"),
        logit_soft_cap=hf.get("final_logit_softcapping"),
        qk_norm="head",
    )


def _read_gguf(metadata: Metadata, config: HFConfig) -> dict[str, Any]:
    # Gemma 3 27B alone scales its queries by its width per head, not by its head dimension.
    largest = config["num_hidden_layers"] == 62
    per_head = config["hidden_size"] // config["num_attention_heads"]
    found: dict[str, Any] = {"query_pre_attn_scalar": per_head if largest else config["head_dim"]}
    window = metadata.get("gemma3.attention.sliding_window")
    if not window:
        return found | {"layer_types": [LAYER_TYPES[0]] * config["num_hidden_layers"]}
    found["sliding_window"] = window
    theta = metadata.get("gemma3.rope.freq_base_swa")
    if theta is not None:
        found["rope_local_base_freq"] = shortest_decimal(theta)
    pattern = metadata.get("gemma3.attention.sliding_window_pattern")
    if isinstance(pattern, list):
        found["layer_types"] = [LAYER_TYPES[bool(local)] for local in pattern]
    elif pattern is not None:
        found["sliding_window_pattern"] = pattern
    return found


FAMILY = Family(
    "gemma3_text",
    "Gemma3ForCausalLM",
    _read,
    keys=GEMMA_KEYS,
    gguf=Gguf(
        "gemma3",
        {
            "hidden_activation": "gelu_pytorch_tanh",
            "attention_bias": False,
            "rope_local_base_freq": 10_000.0,
            "sliding_window_pattern": 6,
        },
        read=_read_gguf,
        names=GEMMA_GGUF,
        restore=without_one,
    ),
    rope=_ROPE,
)
