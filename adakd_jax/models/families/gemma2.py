"""Gemma 2 (arXiv 2408.00118): norms before and after, windows in every other layer, soft caps."""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import LAYER, SHARED_KEYS, Family, norm
from adakd_jax.models.hf_config import every, read_common, read_windows
from adakd_jax.models.hf_values import HFConfig, refuse
from adakd_jax.models.rope_keys import ROPE_KEYS, RopeKeys

# A norm after attention has the name of Llama's before the feed-forward.
GEMMA_KEYS = (
    *SHARED_KEYS,
    *norm("layers.post_attn_norm", LAYER + "post_attention_layernorm"),
    *norm("layers.ffw_norm", LAYER + "pre_feedforward_layernorm"),
    *norm("layers.post_ffw_norm", LAYER + "post_feedforward_layernorm"),
)


def _read(hf: HFConfig) -> DecoderConfig:
    gemma = read_gemma(hf)
    return dataclasses.replace(
        gemma,
        windows=read_windows(hf, hf.get("layer_types") or every(2, gemma.num_layers)),
        attention_soft_cap=hf.get("attn_logit_softcapping", 50.0),
        logit_soft_cap=hf.get("final_logit_softcapping", 30.0),
    )


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


FAMILY = Family("gemma2", "Gemma2ForCausalLM", _read, keys=GEMMA_KEYS)
