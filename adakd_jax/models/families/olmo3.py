"""OLMo 3 (arXiv 2512.13961): OLMo 2 with windows in three layers of four, which alone keep their
rotation where the others' is scaled.
"""

import dataclasses
from typing import Any

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families.olmo2 import POST_NORM_GGUF, POST_NORM_KEYS, has_windows, read_olmo
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import Gguf, Metadata
from adakd_jax.models.hf_config import every, read_windows
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import LAYER_TYPES, RopeKeys, Theta

_THETA = 500_000.0
_ROPE = RopeKeys(Theta(default=_THETA), local=Theta(None, _THETA))


def _read(hf: HFConfig) -> DecoderConfig:
    olmo = read_olmo(hf, rope=_ROPE)
    kinds = hf.get("layer_types") or every(4, olmo.num_layers)
    return dataclasses.replace(
        olmo,
        windows=read_windows(hf, kinds),
        layer_ropes=tuple(LAYER_TYPES.index(kind) for kind in kinds),
    )


def _read_gguf(metadata: Metadata, config: HFConfig) -> dict[str, Any]:
    pattern = metadata["olmo2.attention.sliding_window_pattern"]
    return {
        "sliding_window": metadata["olmo2.attention.sliding_window"],
        "layer_types": [LAYER_TYPES[bool(local)] for local in pattern],
    }


FAMILY = Family(
    "olmo3",
    "Olmo3ForCausalLM",
    _read,
    keys=POST_NORM_KEYS,
    gguf=Gguf(
        "olmo2",
        {"hidden_act": "silu", "attention_bias": False},
        fits=has_windows,
        read=_read_gguf,
        names=POST_NORM_GGUF,
    ),
    rope=_ROPE,
)
