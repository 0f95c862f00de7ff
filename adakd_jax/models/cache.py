"""The key-value cache of incremental decoding."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from adakd_jax.models.config import DecoderConfig


class KVCache(NamedTuple):
    """Keys and values of the slots decoded so far; every row writes the same slots, so prompts are
    padded on the left.

    `keys` and `values` are [L, B, K, S, H], `valid` [B, S] is False for padding and for slots not
    written yet, and `index` (int32 scalar) is the next slot. The caller keeps `index` + the tokens
    of a call within S: a write past the end would land on the last slots.
    """

    keys: Array
    values: Array
    valid: Array
    index: Array


def init_cache(config: DecoderConfig, batch: int, length: int, dtype: DTypeLike) -> KVCache:
    """An empty cache of `length` slots for `batch` rows, keys and values in `dtype`."""
    shape = (config.num_layers, batch, config.num_kv_heads, length, config.head_dim)
    return KVCache(
        keys=jnp.zeros(shape, dtype),
        values=jnp.zeros(shape, dtype),
        valid=jnp.zeros((batch, length), bool),
        index=jnp.zeros((), jnp.int32),
    )


def write_layer(stored: Array, new: Array, layer: Array, slot: Array) -> Array:
    """Put [B, T, K, H] into the slots from `slot` of one layer of [L, B, K, S, H]."""
    block = jnp.swapaxes(new, 1, 2)[None].astype(stored.dtype)
    return jax.lax.dynamic_update_slice(stored, block, (layer, 0, 0, slot, 0))


def read_layer(stored: Array, layer: Array, dtype: DTypeLike) -> Array:
    """Keys or values of one layer, [B, S, K, H]."""
    return jnp.swapaxes(stored[layer], 1, 2).astype(dtype)
