"""GPT-NeoX (arXiv 2204.06745) and Pythia (arXiv 2304.01373): attention and feed-forward in
parallel, a quarter of each head rotated.
"""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import QKV, Entry, Family, fused, linear, norm
from adakd_jax.models.hf_config import read_common
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import RopeKeys, Theta

_ROPE = RopeKeys(Theta("rotary_emb_base"), partial=0.25, partial_key="rotary_pct")


def _read(hf: HFConfig) -> DecoderConfig:
    bias = hf.get("attention_bias", True)
    common = read_common(hf, default_activation="gelu", rope=_ROPE)
    return dataclasses.replace(
        common,
        num_kv_heads=common.num_heads,
        gated_ffw=False,
        norm="layer",
        norm_eps=hf.get("layer_norm_eps", 1e-5),
        qkv_bias=bias,
        out_bias=bias,
        ffw_bias=True,
        parallel="two_norms" if hf.get("use_parallel_residual", True) else None,
    )


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
    rope=_ROPE,
)
