"""GPT-NeoX and Pythia (arXiv 2204.06745, 2304.01373): attention and feed-forward in parallel."""

import dataclasses

import numpy as np

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import QKV, Entry, Family, fused, linear, norm
from adakd_jax.models.gguf_family import (
    LAYER_NORM_SIZES,
    Gguf,
    fused_names,
    outside_names,
)
from adakd_jax.models.hf_config import read_common
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import RopeKeys, Theta

_PARALLEL = "use_parallel_residual"
_ROPE = RopeKeys(Theta("rotary_emb_base"), partial=0.25, partial_key="rotary_pct")


def _read(hf: HFConfig) -> DecoderConfig:
    own = dict(hf, head_dim=None)  # a key that transformers does not read here
    common = read_common(own, default_activation="gelu", rope=_ROPE)
    return dataclasses.replace(
        common,
        num_kv_heads=common.num_heads,
        gated_ffw=False,
        norm="layer",
        norm_eps=hf.get("layer_norm_eps", 1e-5),
        qkv_bias=hf.get("attention_bias", True),
        out_bias=hf.get("attention_bias", True),
        ffw_bias=True,
        parallel="two_norms" if hf.get(_PARALLEL, True) else None,
    )


def _by_head(name: str, values: np.ndarray, hf: HFConfig) -> np.ndarray:
    """All queries, then all keys, then all values → those of one head after the other."""
    if "query_key_value" not in name:
        return values
    heads = hf["num_attention_heads"]
    parts = values.reshape(3, heads, len(values) // (3 * heads), -1)
    return parts.swapaxes(0, 1).reshape(values.shape)


_LAYER = "gpt_neox.layers.{layer}."
FAMILY = Family(
    "gpt_neox",
    "GPTNeoXForCausalLM",
    _read,
    keys=(
        Entry("embed.embedding", "gpt_neox.embed_in.weight"),
        Entry("head.embedding", "embed_out.weight"),
        *norm("final_norm", "gpt_neox.final_layer_norm"),
        *norm("layers.attn_norm", _LAYER + "input_layernorm"),
        *norm("layers.ffw_norm", _LAYER + "post_attention_layernorm"),
        *fused(QKV, _LAYER + "attention.query_key_value", by_head=True),
        *linear("layers.attn.out", _LAYER + "attention.dense"),
        *linear("layers.ffw.up", _LAYER + "mlp.dense_h_to_4h"),
        *linear("layers.ffw.down", _LAYER + "mlp.dense_4h_to_h"),
    ),
    gguf=Gguf(
        "gptneox",
        {"hidden_act": "gelu", "attention_bias": True},
        read=lambda own, _: {_PARALLEL: own.get(f"gptneox.{_PARALLEL}", True)},
        sizes=LAYER_NORM_SIZES,
        states_heads=False,
        outside=outside_names("gpt_neox.embed_in", "gpt_neox.final_layer_norm", "embed_out"),
        layer=_LAYER,
        names=fused_names(
            ("input_layernorm", "post_attention_layernorm"),
            ("attention.query_key_value", "attention.dense"),
            ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        ),
        restore=_by_head,
    ),
    rope=_ROPE,
)
