"""OLMo 2 (arXiv 2501.00656): norms after attention and feed-forward instead of before, and of
queries and keys over their whole width.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import GGUF_NAMES, LAYER, SHARED_KEYS, Family, Gguf, norm
from adakd_jax.models.hf_config import read_common
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import ROPE_KEYS, RopeKeys

# Norms after alone: what else they are called before is then not there.
POST_NORM_KEYS = (
    *SHARED_KEYS,
    *norm("layers.post_attn_norm", LAYER + "post_attention_layernorm"),
    *norm("layers.post_ffw_norm", LAYER + "post_feedforward_layernorm"),
)
POST_NORM_GGUF = GGUF_NAMES | {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def read_olmo(hf: HFConfig, *, rope: RopeKeys = ROPE_KEYS) -> DecoderConfig:
    """What OLMo 2 and 3 share."""
    bias = hf.get("attention_bias", False)
    return dataclasses.replace(
        read_common(hf, default_eps=1e-5, rope=rope),
        qkv_bias=bias,
        out_bias=bias,
        pre_norms=False,
        post_norms=True,
        qk_norm="width",
    )


def _refuse_olmo3(metadata: Mapping[str, Any], config: HFConfig) -> dict[str, Any]:
    if metadata.get("olmo2.attention.sliding_window"):
        raise ValueError(
            "olmo2.attention.sliding_window: OLMo 3 is not read from GGUF files; valid: a folder "
            "of its safetensors"
        )
    return {}


FAMILY = Family(
    "olmo2",
    "Olmo2ForCausalLM",
    read_olmo,
    keys=POST_NORM_KEYS,
    gguf=Gguf(
        "olmo2",
        {"hidden_act": "silu", "attention_bias": False},
        read=_refuse_olmo3,
        names=POST_NORM_GGUF,
    ),
)
