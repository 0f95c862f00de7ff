"""AFM (Arcee AI 2025): Llama whose feed-forward squares what passes its ReLU, without a gate."""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families.llama import halves_from_pairs
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import Gguf
from adakd_jax.models.hf_config import read_common
from adakd_jax.models.hf_values import HFConfig


def _read(hf: HFConfig) -> DecoderConfig:
    bias = hf.get("attention_bias", False)
    return dataclasses.replace(
        read_common(hf, default_activation="relu2", default_eps=1e-5),
        gated_ffw=False,
        qkv_bias=bias,
        out_bias=bias,
        ffw_bias=hf.get("mlp_bias", False),
    )


FAMILY = Family(
    "arcee",
    "ArceeForCausalLM",
    _read,
    gguf=Gguf(
        "arcee",
        {"hidden_act": "relu2", "attention_bias": False, "mlp_bias": False},
        restore=halves_from_pairs,
    ),
)
