"""Qwen3.5, dense text model: three layers with a gated delta net to one with attention."""

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families._delta import (
    DELTA,
    MIXER_KEYS,
    QKV_OF_DELTA,
    ROPE,
    read_mixed,
)
from adakd_jax.models.families._delta_gguf import QWEN3_5
from adakd_jax.models.family import LLAMA_KEYS, Family, fused, linear
from adakd_jax.models.hf_values import HFConfig


def _read(hf: HFConfig) -> DecoderConfig:
    return read_mixed(hf, default_kv_heads=4)


FAMILY = Family(
    "qwen3_5_text",
    "Qwen3_5ForCausalLM",
    _read,
    keys=(
        *(entry for entry in LLAMA_KEYS if not entry.path.startswith("layers.attn.query.")),
        *MIXER_KEYS,
        *fused([f"layers.delta.{name}" for name in QKV_OF_DELTA], DELTA + "in_proj_qkv"),
        *linear("layers.delta.gate", DELTA + "in_proj_z"),
        *linear("layers.delta.write", DELTA + "in_proj_b"),
        *linear("layers.delta.decay", DELTA + "in_proj_a"),
    ),
    gguf=QWEN3_5,
    rope=ROPE,
)
