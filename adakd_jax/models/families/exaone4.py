"""EXAONE 4 (arXiv 2507.11407): norms after, norms of queries and keys; where some layers have a
window, the others rotate nothing.
"""

import dataclasses
from typing import Any

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families.olmo2 import POST_NORM_GGUF, POST_NORM_KEYS
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import Gguf, Metadata
from adakd_jax.models.hf_config import every, read_common, read_windows, rotate_only
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import LAYER_TYPES


def _read(hf: HFConfig) -> DecoderConfig:
    common = dataclasses.replace(
        read_common(hf, default_eps=1e-5), pre_norms=False, post_norms=True, qk_norm="head"
    )
    if hf.get("sliding_window", 4096) is None:
        return common
    pattern = hf.get("sliding_window_pattern", 4)
    windows = read_windows(hf, hf.get("layer_types") or every(pattern, common.num_layers))
    rotated = [window is not None for window in windows]
    return rotate_only(dataclasses.replace(common, windows=windows), rotated)


def _read_gguf(metadata: Metadata, config: HFConfig) -> dict[str, Any]:
    window = metadata.get("exaone4.attention.sliding_window") or None
    pattern = metadata.get("exaone4.attention.sliding_window_pattern") or []
    kinds = [LAYER_TYPES[bool(local)] for local in pattern]
    return {"sliding_window": window} | ({"layer_types": kinds} if window and kinds else {})


FAMILY = Family(
    "exaone4",
    "Exaone4ForCausalLM",
    _read,
    keys=POST_NORM_KEYS,
    gguf=Gguf("exaone4", {"hidden_act": "silu"}, read=_read_gguf, names=POST_NORM_GGUF),
)
