"""gpt-oss (arXiv 2508.10925): experts with biases and a clamped activation, attention with sinks,
windows in every other layer, YaRN.
"""

import dataclasses
import math
from typing import Any

from adakd_jax.models.config import ClampedSwiglu, DecoderConfig, Rope
from adakd_jax.models.family import LAYER, LLAMA_KEYS, Entry, Family
from adakd_jax.models.hf_config import every, read_common, read_windows
from adakd_jax.models.hf_experts import read_experts
from adakd_jax.models.hf_values import HFConfig

_ROPE = {
    "rope_type": "yarn",
    "factor": 32.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
_ROPE_KEYS = ("rope_scaling", "rope_parameters", "rope_theta")


def _read(hf: HFConfig) -> DecoderConfig:
    plain = {key: value for key, value in hf.items() if key not in _ROPE_KEYS}
    common = read_common(plain, default_kv_heads=8, default_head_dim=64)
    bias = hf.get("attention_bias", True)
    kinds = hf.get("layer_types") or every(2, common.num_layers)
    clamped = ClampedSwiglu(hf.get("swiglu_alpha") or 1.702, hf.get("swiglu_limit") or 7.0)
    experts = read_experts(hf, default_count=128, default_active=4, default_weight=0.001)
    return dataclasses.replace(
        common,
        windows=read_windows({"sliding_window": 128} | dict(hf), kinds),
        ropes=(_rope(hf),),
        norm_eps=hf.get("rms_norm_eps", 1e-5),
        qkv_bias=bias,
        out_bias=bias,
        ffw_bias=True,
        attention_sinks=True,
        experts=dataclasses.replace(experts, renormalised=True, router_bias=True, clamped=clamped),
    )


def _rope(hf: HFConfig) -> Rope:
    given: dict[str, Any] = dict(hf.get("rope_scaling") or hf.get("rope_parameters") or _ROPE)
    theta = given.get("rope_theta") or hf.get("rope_theta") or 150_000.0
    kind = given.get("rope_type", given.get("type", "default"))
    if kind == "default":
        return Rope(theta)
    if kind != "yarn":
        raise ValueError(f"rope_type {kind!r} is not supported; valid: default, yarn")
    factor = given["factor"]
    return Rope(
        theta,
        kind="yarn",
        factor=factor,
        original_positions=given["original_max_position_embeddings"],
        beta_fast=given.get("beta_fast") or 32.0,
        beta_slow=given.get("beta_slow") or 1.0,
        truncate=given.get("truncate", True),
        attention_factor=given.get("attention_factor") or 0.1 * math.log(factor) + 1.0,
    )


def _keys() -> tuple[Entry, ...]:
    ours, theirs = "layers.ffw.experts.", LAYER + "mlp.experts."
    both = [
        Entry(f"{ours}{name}.{kind}", f"{theirs}gate_up_proj{end}", part=part, by_turns=True)
        for part, name in enumerate(("gate", "up"))
        for kind, end in (("kernel", ""), ("bias", "_bias"))
    ]
    return (
        *(entry for entry in LLAMA_KEYS if not entry.path.startswith("layers.ffw.")),
        Entry("layers.attn.sinks", LAYER + "self_attn.sinks"),
        Entry("layers.ffw.router.weight", LAYER + "mlp.router.weight", transpose=True),
        Entry("layers.ffw.router.bias", LAYER + "mlp.router.bias"),
        *both,
        Entry(f"{ours}down.kernel", f"{theirs}down_proj"),
        Entry(f"{ours}down.bias", f"{theirs}down_proj_bias"),
    )


FAMILY = Family("gpt_oss", "GptOssForCausalLM", _read, keys=_keys())
