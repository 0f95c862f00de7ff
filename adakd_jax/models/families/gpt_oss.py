"""gpt-oss (arXiv 2508.10925): experts with biases and a clamped activation, attention with sinks,
windows in every other layer, YaRN.
"""

import dataclasses

from adakd_jax.models.config import ClampedSwiglu, DecoderConfig
from adakd_jax.models.family import LAYER, LLAMA_KEYS, Entry, Family
from adakd_jax.models.hf_config import every, read_common, read_windows
from adakd_jax.models.hf_experts import read_experts
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import RopeKeys, Theta

_ROPE = RopeKeys(Theta(default=150_000.0))
_YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def _read(hf: HFConfig) -> DecoderConfig:
    if not (hf.get("rope_scaling") or hf.get("rope_parameters")):
        hf = dict(hf) | {"rope_parameters": _YARN}
    common = read_common(hf, default_kv_heads=8, default_head_dim=64, default_eps=1e-5, rope=_ROPE)
    bias = hf.get("attention_bias", True)
    kinds = hf.get("layer_types") or every(2, common.num_layers)
    clamped = ClampedSwiglu(hf.get("swiglu_alpha") or 1.702, hf.get("swiglu_limit") or 7.0)
    experts = read_experts(hf, default_count=128, default_active=4, default_weight=0.001)
    return dataclasses.replace(
        common,
        windows=read_windows({"sliding_window": 128} | dict(hf), kinds),
        qkv_bias=bias,
        out_bias=bias,
        ffw_bias=True,
        attention_sinks=True,
        experts=dataclasses.replace(experts, renormalised=True, router_bias=True, clamped=clamped),
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


FAMILY = Family("gpt_oss", "GptOssForCausalLM", _read, keys=_keys(), rope=_ROPE)
