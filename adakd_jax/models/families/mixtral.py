"""Mixtral (arXiv 2401.04088): Mistral's layers, eight large experts in each, two for a token."""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families.llama import halves_from_pairs
from adakd_jax.models.family import Family, expert_keys
from adakd_jax.models.gguf_family import GGUF_SIZES, Gguf, expert_names
from adakd_jax.models.hf_config import read_common, read_windows
from adakd_jax.models.hf_experts import read_experts
from adakd_jax.models.hf_values import HFConfig, refuse
from adakd_jax.models.rope_keys import LOCAL, RopeKeys, Theta

_ROPE = RopeKeys(Theta(default=1_000_000.0))


def _read(hf: HFConfig) -> DecoderConfig:
    refuse(hf, "router_jitter_noise", valid="0.0")
    common = read_common(hf, default_kv_heads=8, default_eps=1e-5, rope=_ROPE)
    experts = read_experts(hf, default_count=8, default_active=2, default_weight=0.001)
    window = {"sliding_window": None} | dict(hf)
    return dataclasses.replace(
        common,
        windows=read_windows(window, [LOCAL] * common.num_layers),
        experts=dataclasses.replace(experts, renormalised=True),
    )


_NAMES = ("block_sparse_moe", "w1", "w3", "w2")
FAMILY = Family(
    "mixtral",
    "MixtralForCausalLM",
    _read,
    keys=expert_keys(*_NAMES),
    rope=_ROPE,
    gguf=Gguf(
        "llama",
        {"hidden_act": "silu", "sliding_window": None},
        fits=lambda metadata: bool(metadata.get("llama.expert_count")),
        sizes=GGUF_SIZES
        | {"num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count"},
        names=expert_names(*_NAMES),
        restore=halves_from_pairs,
    ),
)
