"""Tiny models to be pruned, and rows to look at."""

from typing import Any

import jax
import numpy as np

from adakd_jax.axes import IGNORE, TokenBatch
from adakd_jax.hf.pretrained import ModelSource, Pretrained
from adakd_jax.models.decoder import abstract_decoder, random_params
from adakd_jax.models.families import decoder_config
from tests.models.family_cases import CASES


def whole(case: str, **changes: Any) -> Pretrained:
    """A model of `CASES` with random weights, large enough that each part of it matters."""
    hf_config = CASES[case] | {"initializer_range": 0.3} | changes
    config = decoder_config(hf_config)
    params = random_params(config, jax.random.key(0))
    return Pretrained(
        config, abstract_decoder(config)[0], params, None, ModelSource(case, hf_config)
    )


def rows(count: int = 3, length: int = 10) -> TokenBatch:
    """Packed rows: two documents, one and padding, one."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, 61, (count, length)).astype(np.int32)
    segments = np.ones((count, length), np.int32)
    segments[0, 4:], segments[1, 7:] = 2, 0
    positions = np.tile(np.arange(length, dtype=np.int32), (count, 1))
    positions[0, 4:] -= 4
    labels = np.where(segments > 0, rng.integers(3, 61, (count, length)), IGNORE)
    return TokenBatch(tokens, labels.astype(np.int32), positions, segments)
