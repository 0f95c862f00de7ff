"""What Gemma 2 and 3 share."""

import dataclasses

import numpy as np

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import LAYER, SHARED_KEYS, norm
from adakd_jax.models.gguf_family import GGUF_NAMES
from adakd_jax.models.hf_config import read_common
from adakd_jax.models.hf_values import HFConfig, refuse
from adakd_jax.models.rope_keys import ROPE_KEYS, RopeKeys

# A norm after attention has the name of Llama's before the feed-forward.
GEMMA_KEYS = (
    *SHARED_KEYS,
    *norm("layers.post_attn_norm", LAYER + "post_attention_layernorm"),
    *norm("layers.ffw_norm", LAYER + "pre_feedforward_layernorm"),
    *norm("layers.post_ffw_norm", LAYER + "post_feedforward_layernorm"),
)
GEMMA_GGUF = GGUF_NAMES | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def read_gemma(hf: HFConfig, *, rope: RopeKeys = ROPE_KEYS) -> DecoderConfig:
    """What Gemma 2 and 3 share."""
    refuse(hf, "use_bidirectional_attention")
    common = read_common(
        hf,
        default_kv_heads=4,
        default_head_dim=256,
        default_tied=True,
        default_activation="gelu_pytorch_tanh",
        rope=rope,
    )
    bias = hf.get("attention_bias", False)
    return dataclasses.replace(
        common,
        norm="rms_one_plus",
        qkv_bias=bias,
        out_bias=bias,
        post_norms=True,
        attention_scale=hf.get("query_pre_attn_scalar", 256) ** -0.5,
        embed_scale=hf["hidden_size"] ** 0.5,
    )


def without_one(name: str, values: np.ndarray, hf: HFConfig) -> np.ndarray:
    """llama.cpp stores what norms multiply by, 1 + weight."""
    return values - np.float32(1.0) if name.endswith("norm.weight") else values
