"""The key-value cache of incremental decoding."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from adakd_jax.models.config import DecoderConfig

Stored = Array | tuple[Array, ...]

# Where the slots are, from the last axis. Keys have theirs last: a product with a query
# then runs along memory, which is faster on a CPU.
KEY_SLOTS, VALUE_SLOTS = -1, -2


class KVCache(NamedTuple):
    """Keys and values of the slots decoded so far; every row writes the same slots, so prompts are
    padded on the left.

    `keys` are [L, B, K, H, S] and `values` [L, B, K, S, H], or L arrays each after
    `cut_into_layers`; `valid` [B, S] is False for padding and for slots not written yet, and
    `index` (int32 scalar) is the next slot. The caller keeps `index` + the tokens of a call within
    S: a write past the end would land on the last slots.
    """

    keys: Stored
    values: Stored
    valid: Array
    index: Array


def init_cache(config: DecoderConfig, batch: int, length: int, dtype: DTypeLike) -> KVCache:
    """An empty cache of `length` slots for `batch` rows, keys and values in `dtype`."""
    lead = (config.num_layers, batch, config.num_kv_heads)
    return KVCache(
        keys=jnp.zeros((*lead, config.head_dim, length), dtype),
        values=jnp.zeros((*lead, length, config.head_dim), dtype),
        valid=jnp.zeros((batch, length), bool),
        index=jnp.zeros((), jnp.int32),
    )


def cut_into_layers(cache: KVCache) -> KVCache:
    """The same with an array for each layer, as decoding with `layer_views` wants it."""
    return cache._replace(keys=tuple(cache.keys), values=tuple(cache.values))


def write_layer(
    stored: Stored, new: Array, layer: Array | int, slot: Array, slot_axis: int
) -> Stored:
    """Put [B, T, K, H] into the slots from `slot` of one layer; `slot_axis`: see `KEY_SLOTS`."""
    block = jnp.moveaxis(new, 1, slot_axis)
    if isinstance(stored, tuple):
        assert isinstance(layer, int)
        written = _put(stored[layer], block, [0] * block.ndim, slot, slot_axis)
        return (*stored[:layer], written, *stored[layer + 1 :])
    return _put(stored, block[None], [layer] + [0] * block.ndim, slot, slot_axis)


def _put(
    stored: Array, block: Array, start: list[Array | int], slot: Array, slot_axis: int
) -> Array:
    start[slot_axis] = slot
    return jax.lax.dynamic_update_slice(stored, block.astype(stored.dtype), start)


def read_layer(stored: Stored, layer: Array | int, dtype: DTypeLike, slot_axis: int) -> Array:
    """Keys or values of one layer, [B, S, K, H]."""
    return jnp.moveaxis(stored[layer], slot_axis, 1).astype(dtype)
