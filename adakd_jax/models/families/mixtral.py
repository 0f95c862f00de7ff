"""Mixtral (arXiv 2401.04088): Mistral's layers, eight large experts in each, two for a token."""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import Family, expert_keys
from adakd_jax.models.hf_config import read_common, read_windows
from adakd_jax.models.hf_experts import read_experts
from adakd_jax.models.hf_values import HFConfig, refuse
from adakd_jax.models.rope_keys import LOCAL


def _read(hf: HFConfig) -> DecoderConfig:
    refuse(hf, "router_jitter_noise", valid="0.0")
    common = read_common(
        dict(hf) | {"rope_theta": hf.get("rope_theta") or 1_000_000.0}, default_kv_heads=8
    )
    experts = read_experts(hf, default_count=8, default_active=2, default_weight=0.001)
    window = {"sliding_window": None} | dict(hf)
    return dataclasses.replace(
        common,
        norm_eps=hf.get("rms_norm_eps", 1e-5),
        windows=read_windows(window, [LOCAL] * common.num_layers),
        experts=dataclasses.replace(experts, renormalised=True),
    )


FAMILY = Family(
    "mixtral", "MixtralForCausalLM", _read, keys=expert_keys("block_sparse_moe", "w1", "w3", "w2")
)
