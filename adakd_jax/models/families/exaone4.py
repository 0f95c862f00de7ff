"""EXAONE 4 (arXiv 2507.11407): norms after, norms of queries and keys; where some layers have a
window, the others rotate nothing.
"""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families.olmo2 import POST_NORM_KEYS
from adakd_jax.models.family import Family
from adakd_jax.models.hf_config import every, read_common, read_windows, rotate_only
from adakd_jax.models.hf_values import HFConfig


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


FAMILY = Family("exaone4", "Exaone4ForCausalLM", _read, keys=POST_NORM_KEYS)
