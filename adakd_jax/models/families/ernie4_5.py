"""ERNIE 4.5, dense (Baidu 2025): Llama that rotates neighbouring numbers."""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import Gguf
from adakd_jax.models.hf_config import read_common
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import RopeKeys, Theta

_ROPE = RopeKeys(Theta(default=500_000.0))


def _read(hf: HFConfig) -> DecoderConfig:
    bias = hf.get("use_bias", False)
    return dataclasses.replace(
        read_common(
            hf,
            default_kv_heads=2,
            default_head_dim=128,
            default_tied=True,
            default_eps=1e-5,
            rope=_ROPE,
        ),
        qkv_bias=bias,
        out_bias=bias,
        ffw_bias=bias,
        rotates_neighbours=True,
    )


FAMILY = Family(
    "ernie4_5",
    "Ernie4_5ForCausalLM",
    _read,
    gguf=Gguf("ernie4_5", {"hidden_act": "silu", "use_bias": False}),
    rope=_ROPE,
)
