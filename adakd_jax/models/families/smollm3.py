"""SmolLM3 (Hugging Face 2025): Llama in which every fourth layer rotates nothing."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families.llama import halves_from_pairs
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import Gguf
from adakd_jax.models.hf_config import read_common, read_windows, rotate_only
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import GLOBAL, LOCAL, RopeKeys, Theta

_ROPE = RopeKeys(Theta(default=2_000_000.0))


def _read(hf: HFConfig) -> DecoderConfig:
    common = read_common(hf, default_kv_heads=4, default_tied=True, rope=_ROPE)
    rotated = _rotated(hf)
    windows = (None,) * common.num_layers
    if hf.get("use_sliding_window", False) and hf.get("sliding_window") is not None:
        kinds = [GLOBAL if turns else LOCAL for turns in rotated]
        windows = read_windows(hf, hf.get("layer_types") or kinds)
    bias = hf.get("attention_bias", False)
    model = dataclasses.replace(
        common, windows=windows, qkv_bias=bias, out_bias=bias, ffw_bias=hf.get("mlp_bias", False)
    )
    return rotate_only(model, rotated)


def _rotated(hf: HFConfig) -> list[bool]:
    given = hf.get("no_rope_layers")
    if given:
        return [bool(turns) for turns in given]
    every = hf.get("no_rope_layer_interval", 4)
    return [(layer + 1) % every != 0 for layer in range(hf["num_hidden_layers"])]


def _select(hf: HFConfig, layers: Sequence[int]) -> dict[str, Any]:
    rotated = _rotated(hf)
    return {"no_rope_layers": [int(rotated[layer]) for layer in layers]}


FAMILY = Family(
    "smollm3",
    "SmolLM3ForCausalLM",
    _read,
    gguf=Gguf(
        "smollm3",
        {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
        restore=halves_from_pairs,
    ),
    rope=_ROPE,
    select=_select,
)
