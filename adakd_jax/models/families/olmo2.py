"""OLMo 2 (arXiv 2501.00656): norms after attention and feed-forward instead of before, and of
queries and keys over their whole width.
"""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import LAYER, SHARED_KEYS, Family, norm
from adakd_jax.models.gguf_family import GGUF_NAMES, Gguf, Metadata
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


def has_windows(metadata: Metadata) -> bool:
    """OLMo 3's files differ from OLMo 2's by that alone."""
    return bool(metadata.get("olmo2.attention.sliding_window"))


FAMILY = Family(
    "olmo2",
    "Olmo2ForCausalLM",
    read_olmo,
    keys=POST_NORM_KEYS,
    gguf=Gguf(
        "olmo2",
        {"hidden_act": "silu", "attention_bias": False},
        fits=lambda metadata: not has_windows(metadata),
        names=POST_NORM_GGUF,
    ),
)
