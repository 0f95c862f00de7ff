"""Command R7B and Command A (arXiv 2504.00698): attention and feed-forward of one norm in parallel,
layer norm without bias, layers without a window rotate nothing.
"""

import dataclasses
from typing import Any

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import SHARED_KEYS, Family
from adakd_jax.models.gguf_family import LAYER_NORM_SIZES, Gguf, Metadata
from adakd_jax.models.hf_config import every, read_common, read_windows, rotate_only
from adakd_jax.models.hf_values import HFConfig, refuse, shortest_decimal


def _read(hf: HFConfig) -> DecoderConfig:
    refuse(hf, "use_qk_norm")
    common = read_common(hf, default_tied=True)
    kinds = hf.get("layer_types") or every(hf.get("sliding_window_pattern", 4), common.num_layers)
    windows = read_windows(hf, kinds)
    bias = hf.get("attention_bias", False)
    model = dataclasses.replace(
        common,
        windows=windows,
        norm="layer_without_bias",
        norm_eps=hf.get("layer_norm_eps", 1e-5),
        qkv_bias=bias,
        out_bias=bias,
        parallel="one_norm",
        rotates_neighbours=True,
        logit_scale=hf.get("logit_scale", 0.0625),
    )
    return rotate_only(model, [window is not None for window in windows])


def _read_gguf(metadata: Metadata, config: HFConfig) -> dict[str, Any]:
    return {
        "sliding_window": metadata["cohere2.attention.sliding_window"],
        "logit_scale": shortest_decimal(metadata["cohere2.logit_scale"]),
    }


FAMILY = Family(
    "cohere2",
    "Cohere2ForCausalLM",
    _read,
    keys=SHARED_KEYS,
    gguf=Gguf(
        "cohere2",
        {"hidden_act": "silu", "attention_bias": False, "use_qk_norm": False},
        read=_read_gguf,
        sizes=LAYER_NORM_SIZES,
    ),
)
