"""What incremental decoding keeps of the tokens so far: keys and values, or a delta net's state."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from adakd_jax.models.config import SOURCES, DecoderConfig, Mixer
from adakd_jax.models.delta_net import delta_state
from adakd_jax.models.layer_kinds import heads_of, layers_with
from adakd_jax.models.reading import source_row

Stored = Array | tuple[Array, ...]

# Where the slots are, from the last axis. Keys have theirs last: a product with a query
# then runs along memory, which is faster on a CPU.
KEY_SLOTS, VALUE_SLOTS = -1, -2


class KVCache(NamedTuple):
    """What all layers keep of the slots decoded so far; every row writes the same slots, so prompts
    are padded on the left.

    `stored` has for each mixer that keeps something what its L layers keep: `attn` and `wide` have
    keys [L, B, K, H, S] and values [L, B, K, S, H], `delta` those of `DeltaState`, [L, B, …]; or L
    arrays each after `cut_into_layers`. `valid` [B, S] is False for padding and for slots not
    written yet, and `index` (int32 scalar) is the next slot. The caller keeps `index` + the tokens
    of a call within S: a write past the end would land on the last slots.
    """

    stored: dict[str, Sequence[Stored]]
    valid: Array
    index: Array


def init_cache(config: DecoderConfig, batch: int, length: int, dtype: DTypeLike) -> KVCache:
    """An empty cache of `length` slots for `batch` rows, keys and values in `dtype`."""
    stored: dict[str, Any] = {}
    kinds: tuple[Mixer, ...] = ("attn", "wide")
    for kind in kinds:
        if layers := len(layers_with(config, kind)):
            head_dim, kv_heads = heads_of(config, kind)
            lead = (layers, batch, kv_heads)
            stored[kind] = (
                jnp.zeros((*lead, head_dim, length), dtype),
                jnp.zeros((*lead, length, head_dim), dtype),
            )
    if layers := len(layers_with(config, "delta")):
        assert config.delta_net is not None
        one = delta_state(config.delta_net, batch, dtype)
        stored["delta"] = tuple(jnp.zeros((layers, *x.shape), x.dtype) for x in one)
    return KVCache(
        stored=stored,
        valid=jnp.zeros((batch, length), bool),
        index=jnp.zeros((), jnp.int32),
    )


def cut_into_layers(cache: KVCache) -> KVCache:
    """The same with an array for each layer, as decoding with `layer_views` wants it."""
    return cache._replace(stored=jax.tree.map(tuple, cache.stored))


def write_slots(
    stored: Stored, new: Array, layer: Array | int, slot: Array, slot_axis: int
) -> Stored:
    """Put [B, T, K, H] into the slots from `slot` of one layer; `slot_axis`: see `KEY_SLOTS`."""
    return write_layer(stored, jnp.moveaxis(new, 1, slot_axis), layer, slot, slot_axis)


def write_layer(
    stored: Stored, new: Array, layer: Array | int, slot: Array | int = 0, slot_axis: int = -1
) -> Stored:
    """Put what is new of one layer where it belongs, along `slot_axis` from `slot` on."""
    if isinstance(stored, tuple):
        assert isinstance(layer, int)
        written = _put(stored[layer], new, [0] * new.ndim, slot, slot_axis)
        return (*stored[:layer], written, *stored[layer + 1 :])
    return _put(stored, new[None], [layer] + [0] * new.ndim, slot, slot_axis)


def _put(
    stored: Array, block: Array, start: list[Array | int], slot: Array | int, slot_axis: int
) -> Array:
    start[slot_axis] = slot
    return jax.lax.dynamic_update_slice(stored, block.astype(stored.dtype), start)


def read_slots(stored: Stored, layer: Array | int, dtype: DTypeLike, slot_axis: int) -> Array:
    """Keys or values of one layer, [B, S, K, H]."""
    return jnp.moveaxis(stored[layer], slot_axis, 1).astype(dtype)


def through_cache(
    config: DecoderConfig,
    stored: dict[str, Any],
    made: tuple[Array, Array] | None,
    where: tuple[Mixer, Array | int, Array],
    dtype: DTypeLike,
) -> tuple[tuple[Array, Array], dict[str, Any]]:
    """Keys and values of all slots that a layer attends to, and what is stored with its own.

    Args:
        config: of the model.
        stored: see `KVCache`.
        made: keys and values of the layer, None if it reads another's.
        where: mixer of the layer, its row among the layers of that, and the first slot.
        dtype: of what is returned.
    """
    mixer, row, slot = where
    source = SOURCES.get(mixer, mixer)
    keys, values = stored[source]
    if made is None:
        row = source_row(config, source)
    else:
        keys = write_slots(keys, made[0], row, slot, KEY_SLOTS)
        values = write_slots(values, made[1], row, slot, VALUE_SLOTS)
    key = read_slots(keys, row, dtype, KEY_SLOTS)
    return (key, read_slots(values, row, dtype, VALUE_SLOTS)), stored | {source: (keys, values)}
