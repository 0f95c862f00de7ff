"""Gemma 4, text (Google 2026): wide heads in layers that see everything, keys and values that later
layers share, inputs of each layer's own, values divided by their root mean square.
"""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families._gemma4 import (
    read_experts_beside,
    read_heads,
    read_kinds,
    read_mixers,
    read_ropes,
    select,
)
from adakd_jax.models.families._gemma4_gguf import GGUF
from adakd_jax.models.families._gemma4_keys import KEYS
from adakd_jax.models.family import Family
from adakd_jax.models.hf_config import read_common, read_windows
from adakd_jax.models.hf_values import HFConfig, refuse
from adakd_jax.models.layer_sizes import PerLayerInputs, WideHeads
from adakd_jax.models.rope_keys import RopeKeys, Theta

_ROPE = RopeKeys(Theta(None, 1_000_000.0), local=Theta(None), older=False)


def _read(hf: HFConfig) -> DecoderConfig:
    if hf.get("use_bidirectional_attention") == "all":
        # "vision" is of images alone.
        refuse(hf, "use_bidirectional_attention", valid='null, "vision"')
    kinds, (local_rope, rope) = read_kinds(hf), read_ropes(hf)
    local, wide = read_heads(hf, kinds)
    common = read_common(
        {key: hf[key] for key in hf if key != "rope_parameters"},
        default_kv_heads=4,
        default_head_dim=256,
        default_tied=True,
        default_activation="gelu_pytorch_tanh",
    )
    bias = hf.get("attention_bias", False)
    reader_width = 2 * common.ffw_dim if hf.get("use_double_wide_mlp") else None
    return dataclasses.replace(
        common,
        head_dim=local.head_dim,
        num_kv_heads=local.num_kv_heads,
        windows=read_windows({"sliding_window": 512} | dict(hf), kinds),
        ropes=(local_rope,),
        mixers=read_mixers(hf, kinds),
        wide=WideHeads(*wide, hf.get("attention_k_eq_v", False), rope),
        reader_ffw_dim=reader_width if hf.get("num_kv_shared_layers") else None,
        qk_norm="head",
        value_norm=True,
        qkv_bias=bias,
        out_bias=bias,
        post_norms=True,
        attention_scale=1.0,
        embed_scale=hf["hidden_size"] ** 0.5,
        logit_soft_cap=hf.get("final_logit_softcapping"),
        per_layer=_read_inputs(hf),
        layer_scalar=True,
        experts=read_experts_beside(hf),
    )


def _read_inputs(hf: HFConfig) -> PerLayerInputs | None:
    dim = hf.get("hidden_size_per_layer_input", 256)
    return PerLayerInputs(dim, hf.get("vocab_size_per_layer_input", 262_144)) if dim else None


FAMILY = Family(
    "gemma4_text", "Gemma4ForCausalLM", _read, keys=KEYS, gguf=GGUF, rope=_ROPE, select=select
)
