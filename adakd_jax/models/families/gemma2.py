"""Gemma 2 (arXiv 2408.00118): norms before and after, windows in every other layer, soft caps."""

import dataclasses
from typing import Any

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families._gemma import GEMMA_GGUF, GEMMA_KEYS, read_gemma, without_one
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import Gguf, Metadata
from adakd_jax.models.hf_config import every, read_windows
from adakd_jax.models.hf_values import HFConfig, shortest_decimal


def _read(hf: HFConfig) -> DecoderConfig:
    gemma = read_gemma(hf)
    return dataclasses.replace(
        gemma,
        windows=read_windows(hf, hf.get("layer_types") or every(2, gemma.num_layers)),
        attention_soft_cap=hf.get("attn_logit_softcapping", 50.0),
        logit_soft_cap=hf.get("final_logit_softcapping", 30.0),
    )


def _read_gguf(metadata: Metadata, config: HFConfig) -> dict[str, Any]:
    # Gemma 2 27B alone scales its queries by its width per head, not by its head dimension.
    largest = config["num_hidden_layers"] == 46
    per_head = config["hidden_size"] // config["num_attention_heads"]
    caps = {
        f"{name}ping": shortest_decimal(metadata[f"gemma2.{name}ping"])
        for name in ("attn_logit_softcap", "final_logit_softcap")
    }
    return caps | {
        "sliding_window": metadata["gemma2.attention.sliding_window"],
        "query_pre_attn_scalar": per_head if largest else config["head_dim"],
    }


FAMILY = Family(
    "gemma2",
    "Gemma2ForCausalLM",
    _read,
    keys=GEMMA_KEYS,
    gguf=Gguf(
        "gemma2",
        {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False},
        read=_read_gguf,
        names=GEMMA_GGUF,
        restore=without_one,
    ),
)
