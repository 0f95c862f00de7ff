"""What Qwen3-Next and Qwen3.5 share: layers with a gated delta net among layers with attention, of
which the output is gated.
"""

import dataclasses

from adakd_jax.models.config import DecoderConfig, DeltaNetSizes, Mixer
from adakd_jax.models.family import LAYER, Entry, fused, linear, norm
from adakd_jax.models.hf_config import read_common
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import RopeKeys

_MIXERS: dict[str, Mixer] = {"full_attention": "attn", "linear_attention": "delta"}
# Keys of a rotation by time, height and width have no effect on text.
ROPE = RopeKeys(partial=0.25)


def read_mixed(hf: HFConfig, *, default_kv_heads: int) -> DecoderConfig:
    """A dense model of such layers."""
    common = read_common(hf, default_kv_heads=default_kv_heads, default_head_dim=256, rope=ROPE)
    bias = hf.get("attention_bias", False)
    return dataclasses.replace(
        common,
        norm="rms_one_plus",
        qk_norm="head",
        qkv_bias=bias,
        out_bias=bias,
        attention_gate=True,
        mixers=_read_mixers(hf, common.num_layers),
        delta_net=_read_delta_net(hf),
    )


def _read_mixers(hf: HFConfig, layers: int) -> tuple[Mixer, ...]:
    interval = hf.get("full_attention_interval") or 4
    kinds = hf.get("layer_types") or [
        "linear_attention" if (layer + 1) % interval else "full_attention"
        for layer in range(layers)
    ]
    unknown = sorted(set(kinds) - set(_MIXERS))
    if unknown:
        raise ValueError(f"layer_types {unknown} are not supported; valid: {', '.join(_MIXERS)}")
    return tuple(_MIXERS[kind] for kind in kinds)


def _read_delta_net(hf: HFConfig) -> DeltaNetSizes:
    return DeltaNetSizes(
        key_heads=hf.get("linear_num_key_heads", 16),
        value_heads=hf.get("linear_num_value_heads", 32),
        key_dim=hf.get("linear_key_head_dim", 128),
        value_dim=hf.get("linear_value_head_dim", 128),
        kernel=hf.get("linear_conv_kernel_dim", 4),
    )


DELTA = LAYER + "linear_attn."
QKV_OF_DELTA = ("query", "key", "value")
# Without the projections of a delta net, which Qwen3-Next fuses in another way.
MIXER_KEYS = (
    *fused(("layers.attn.query", "layers.attn.gate"), LAYER + "self_attn.q_proj", by_head=True),
    *linear("layers.delta.out", DELTA + "out_proj"),
    *(
        Entry(f"layers.delta.{name}_filter", DELTA + "conv1d.weight", True, part)
        for part, name in enumerate(QKV_OF_DELTA)
    ),
    Entry("layers.delta.log_rate", DELTA + "A_log"),
    Entry("layers.delta.decay_bias", DELTA + "dt_bias"),
    *norm("layers.delta.norm", DELTA + "norm"),
)
