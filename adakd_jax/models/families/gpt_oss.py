"""gpt-oss (arXiv 2508.10925): experts with biases and a clamped activation, attention with sinks,
windows in every other layer, YaRN.
"""

import dataclasses
from typing import Any

from adakd_jax.models.config import ClampedSwiglu, DecoderConfig
from adakd_jax.models.families._gpt_oss import GATE_UP, NAMES, full_name, keys
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import GGUF_SIZES, Gguf, Join, Metadata, by_turns
from adakd_jax.models.hf_config import every, read_common, read_windows
from adakd_jax.models.hf_experts import read_experts
from adakd_jax.models.hf_values import HFConfig, shortest_decimal
from adakd_jax.models.rope_keys import RopeKeys, Theta

_ROPE = RopeKeys(Theta(default=150_000.0))
_YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def _read(hf: HFConfig) -> DecoderConfig:
    if not (hf.get("rope_scaling") or hf.get("rope_parameters")):
        hf = dict(hf) | {"rope_parameters": _YARN}
    common = read_common(hf, default_kv_heads=8, default_head_dim=64, default_eps=1e-5, rope=_ROPE)
    bias = hf.get("attention_bias", True)
    kinds = hf.get("layer_types") or every(2, common.num_layers)
    clamped = ClampedSwiglu(hf.get("swiglu_alpha") or 1.702, hf.get("swiglu_limit") or 7.0)
    experts = read_experts(hf, default_count=128, default_active=4, default_weight=0.001)
    return dataclasses.replace(
        common,
        windows=read_windows({"sliding_window": 128} | dict(hf), kinds),
        qkv_bias=bias,
        out_bias=bias,
        ffw_bias=True,
        attention_sinks=True,
        experts=dataclasses.replace(experts, renormalised=True, router_bias=True, clamped=clamped),
    )


def _read_gguf(metadata: Metadata, config: HFConfig) -> dict[str, Any]:
    scaling = "gpt-oss.rope.scaling."
    return {
        "sliding_window": metadata["gpt-oss.attention.sliding_window"],
        # Of YaRN llama.cpp keeps these two.
        "rope_parameters": _YARN
        | {
            "rope_theta": config["rope_theta"],
            "factor": shortest_decimal(metadata[f"{scaling}factor"]),
            "original_max_position_embeddings": metadata[f"{scaling}original_context_length"],
        },
    }


FAMILY = Family(
    "gpt_oss",
    "GptOssForCausalLM",
    _read,
    keys=keys(),
    gguf=Gguf(
        "gpt-oss",
        {"hidden_act": "silu", "attention_bias": True},
        read=_read_gguf,
        sizes=GGUF_SIZES
        | {"num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count"},
        names=NAMES,
        full_name=full_name,
        join=Join(GATE_UP, -1, by_turns),
    ),
    rope=_ROPE,
)
