"""Phi-3 and Phi-4 (arXiv 2404.14219, 2412.08905): Llama with fused projections; Phi-4-mini rotates
three quarters of a head, and longer rows are rotated by LongRoPE.
"""

import dataclasses
from typing import Any

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import LAYER, LLAMA_KEYS, QKV, Family, fused, linear
from adakd_jax.models.gguf_family import GGUF_NAMES, Gguf, Metadata
from adakd_jax.models.hf_config import read_common, read_windows
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import LOCAL, RopeKeys

_ROPE = RopeKeys(partial=1.0)
_FUSED = ("layers.attn.", "layers.ffw.")


def _read(hf: HFConfig) -> DecoderConfig:
    original = {"original_max_position_embeddings": 4096}
    common = read_common(original | dict(hf), default_eps=1e-5, rope=_ROPE)
    if hf.get("sliding_window") is None:
        return common
    return dataclasses.replace(common, windows=read_windows(hf, [LOCAL] * common.num_layers))


def _read_gguf(metadata: Metadata, config: HFConfig) -> dict[str, Any]:
    original = metadata.get("phi3.rope.scaling.original_context_length")
    return {
        "sliding_window": metadata.get("phi3.attention.sliding_window") or None,
        "original_max_position_embeddings": original or config["max_position_embeddings"],
    }


FAMILY = Family(
    "phi3",
    "Phi3ForCausalLM",
    _read,
    keys=(
        *(entry for entry in LLAMA_KEYS if not entry.path.startswith(_FUSED)),
        *fused(QKV, LAYER + "self_attn.qkv_proj"),
        *linear("layers.attn.out", LAYER + "self_attn.o_proj"),
        *fused(("layers.ffw.gate", "layers.ffw.up"), LAYER + "mlp.gate_up_proj"),
        *linear("layers.ffw.down", LAYER + "mlp.down_proj"),
    ),
    gguf=Gguf(
        "phi3",
        {"hidden_act": "silu"},
        read=_read_gguf,
        names=GGUF_NAMES | {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
    ),
    rope=_ROPE,
)
