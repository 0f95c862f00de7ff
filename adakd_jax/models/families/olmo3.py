"""OLMo 3 (arXiv 2512.13961): OLMo 2 with windows in three layers of four, which alone keep their
rotation where the others' is scaled.
"""

import dataclasses

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families.olmo2 import POST_NORM_KEYS, read_olmo
from adakd_jax.models.family import Family
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


FAMILY = Family("olmo3", "Olmo3ForCausalLM", _read, keys=POST_NORM_KEYS, rope=_ROPE)
