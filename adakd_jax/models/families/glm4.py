"""GLM-4, the models of 0414 (Zhipu AI 2025): norms before and after, half of each head rotated, in
neighbours.
"""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import LAYER, SHARED_KEYS, Family, fused, linear, norm
from adakd_jax.models.gguf_family import GGUF_NAMES, Gguf
from adakd_jax.models.hf_config import read_common
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import RopeKeys

_ROPE = RopeKeys(partial=0.5)


def _read(hf: HFConfig) -> DecoderConfig:
    return dataclasses.replace(
        read_common(
            hf, default_kv_heads=2, default_head_dim=128, default_eps=1.5625e-7, rope=_ROPE
        ),
        qkv_bias=hf.get("attention_bias", True),
        post_norms=True,
        rotates_neighbours=True,
    )


FAMILY = Family(
    "glm4",
    "Glm4ForCausalLM",
    _read,
    keys=(
        *(entry for entry in SHARED_KEYS if not entry.path.startswith("layers.ffw.")),
        *norm("layers.post_attn_norm", LAYER + "post_self_attn_layernorm"),
        *norm("layers.ffw_norm", LAYER + "post_attention_layernorm"),
        *norm("layers.post_ffw_norm", LAYER + "post_mlp_layernorm"),
        *fused(("layers.ffw.gate", "layers.ffw.up"), LAYER + "mlp.gate_up_proj"),
        *linear("layers.ffw.down", LAYER + "mlp.down_proj"),
    ),
    gguf=Gguf(
        "glm4",
        {"hidden_act": "silu", "attention_bias": True},
        names=GGUF_NAMES
        | {
            "post_attention_norm": "post_self_attn_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "post_ffw_norm": "post_mlp_layernorm",
        },
    ),
    rope=_ROPE,
)
