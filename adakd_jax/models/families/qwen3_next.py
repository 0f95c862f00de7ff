"""Qwen3-Next: the layers of Qwen3.5 with experts, and one more expert that all tokens have."""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families._delta import DELTA, MIXER_KEYS, ROPE, read_mixed
from adakd_jax.models.families._delta_gguf import QWEN3_NEXT
from adakd_jax.models.family import LAYER, Entry, Family, expert_keys, fused, linear
from adakd_jax.models.hf_experts import read_experts
from adakd_jax.models.hf_values import HFConfig


def _read(hf: HFConfig) -> DecoderConfig:
    experts = read_experts(hf, default_count=512, default_active=10, default_weight=0.001)
    return dataclasses.replace(
        read_mixed(hf, default_kv_heads=2),
        ffw_dim=hf.get("moe_intermediate_size") or 512,
        experts=dataclasses.replace(
            experts,
            renormalised=hf.get("norm_topk_prob", True),
            shared_dim=hf.get("shared_expert_intermediate_size") or 512,
        ),
    )


def _delta(*names: str) -> list[str]:
    return [f"layers.delta.{name}" for name in names]


_SHARED = LAYER + "mlp.shared_expert"
FAMILY = Family(
    "qwen3_next",
    "Qwen3NextForCausalLM",
    _read,
    keys=(
        *(e for e in expert_keys("mlp") if not e.path.startswith("layers.attn.query.")),
        *MIXER_KEYS,
        # Head by head of the keys.
        *fused(_delta("query", "key", "value", "gate"), DELTA + "in_proj_qkvz", by_head=True),
        *fused(_delta("write", "decay"), DELTA + "in_proj_ba", by_head=True),
        *linear("layers.shared.gate", _SHARED + ".gate_proj"),
        *linear("layers.shared.up", _SHARED + ".up_proj"),
        *linear("layers.shared.down", _SHARED + ".down_proj"),
        Entry("layers.shared.share", _SHARED + "_gate.weight", transpose=True),
    ),
    gguf=QWEN3_NEXT,
    rope=ROPE,
)
