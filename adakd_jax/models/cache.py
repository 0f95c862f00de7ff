"""The key-value cache of incremental decoding."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from adakd_jax.models.config import DecoderConfig

Stored = Array | tuple[Array, ...]


class KVCache(NamedTuple):
    """Keys and values of the slots decoded so far; every row writes the same slots, so prompts are
    padded on the left.

    `keys` and `values` are [L, B, K, S, H], or L arrays [B, K, S, H] each after `cut_into_layers`;
    `valid` [B, S] is False for padding and for slots not
    written yet, and `index` (int32 scalar) is the next slot. The caller keeps `index` + the tokens
    of a call within S: a write past the end would land on the last slots.
    """

    keys: Stored
    values: Stored
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


def cut_into_layers(cache: KVCache) -> KVCache:
    """The same with an array for each layer, as decoding with `layer_views` wants it."""
    return cache._replace(keys=tuple(cache.keys), values=tuple(cache.values))


def write_layer(stored: Stored, new: Array, layer: Array | int, slot: Array) -> Stored:
    """Put [B, T, K, H] into the slots from `slot` of one layer."""
    block = jnp.swapaxes(new, 1, 2)
    if isinstance(stored, tuple):
        assert isinstance(layer, int)
        block = block.astype(stored[layer].dtype)
        written = jax.lax.dynamic_update_slice(stored[layer], block, (0, 0, slot, 0))
        return (*stored[:layer], written, *stored[layer + 1 :])
    block = block[None].astype(stored.dtype)
    return jax.lax.dynamic_update_slice(stored, block, (layer, 0, 0, slot, 0))


def read_layer(stored: Stored, layer: Array | int, dtype: DTypeLike) -> Array:
    """Keys or values of one layer, [B, S, K, H]."""
    return jnp.swapaxes(stored[layer], 1, 2).astype(dtype)
