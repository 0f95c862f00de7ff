"""OLMoE (arXiv 2409.02060): many small experts, norms over the whole width of queries and keys."""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import Family, expert_keys
from adakd_jax.models.gguf_family import EXPERT_SIZES, Gguf, expert_names
from adakd_jax.models.hf_config import read_common
from adakd_jax.models.hf_experts import read_experts
from adakd_jax.models.hf_values import HFConfig, refuse


def _read(hf: HFConfig) -> DecoderConfig:
    refuse(hf, "clip_qkv", valid="null")
    common, bias = read_common(hf, default_eps=1e-5), hf.get("attention_bias", False)
    return dataclasses.replace(
        common,
        qkv_bias=bias,
        out_bias=bias,
        qk_norm="width",
        experts=read_experts(hf, default_count=64, default_active=8, default_weight=0.01),
    )


FAMILY = Family(
    "olmoe",
    "OlmoeForCausalLM",
    _read,
    keys=expert_keys("mlp"),
    gguf=Gguf(
        "olmoe",
        {"hidden_act": "silu", "attention_bias": False, "norm_topk_prob": False},
        sizes=EXPERT_SIZES,
        names=expert_names("mlp"),
    ),
)
