"""Granite 4, its dense models without Mamba (IBM 2025): Granite 3 with gate and up as one."""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families.granite import read_granite
from adakd_jax.models.family import LAYER, LLAMA_KEYS, Family, fused, linear
from adakd_jax.models.hf_config import rotate_only
from adakd_jax.models.hf_values import HFConfig, refuse, require


def _read(hf: HFConfig) -> DecoderConfig:
    require(hf, "shared_intermediate_size", "layer_types")
    if hf.get("num_local_experts", 8) != 0:
        raise ValueError(
            f"config.json: num_local_experts={hf.get('num_local_experts', 8)!r} is not supported; "
            "valid: 0 (of granitemoehybrid, models with attention and a dense feed-forward alone)"
        )
    refuse(hf, "mlp_bias")
    other = sorted(set(hf["layer_types"]) - {"attention", "full_attention"})
    if other:
        raise ValueError(f"layer_types {other} are not supported; valid: attention")
    model = read_granite(dict(hf) | {"intermediate_size": hf["shared_intermediate_size"]})
    rotates = hf.get("position_embedding_type") == "rope"
    model = dataclasses.replace(model, windows=(None,) * model.num_layers)
    return rotate_only(model, [rotates] * model.num_layers)


FAMILY = Family(
    "granitemoehybrid",
    "GraniteMoeHybridForCausalLM",
    _read,
    keys=(
        *(entry for entry in LLAMA_KEYS if not entry.path.startswith("layers.ffw.")),
        *fused(("layers.ffw.gate", "layers.ffw.up"), LAYER + "shared_mlp.input_linear"),
        *linear("layers.ffw.down", LAYER + "shared_mlp.output_linear"),
    ),
)
