"""Arrays and their shards: built from pieces on the host, and brought back piece by piece.

In both directions no more of an array is in host memory than this process has to hold of it.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jax.typing import DTypeLike

# What part of an array: a slice with start and stop for every dimension.
Index = tuple[slice, ...]
# XLA takes a host buffer over as it is, without a copy, where it starts at such an address.
_ALIGNMENT = 64
# At most so much of a tensor is in memory besides where it comes from and goes to.
BLOCK_BYTES = 4 * 2**20


class ShardBuffers:
    """The shards of one array that this process holds: filled here, then handed to the devices.

    Devices that hold the same shard share one buffer. A CPU device takes it over without a copy;
    XLA never writes to a buffer that it did not make itself, not even a donated one.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, sharding: Sharding | None = None):
        """Reserve memory; without a sharding, for the default device."""
        self.shape = shape
        self._sharding = sharding
        self._devices: dict[tuple[tuple[int, int], ...], list[Any]] = {}
        places: Any = {None: tuple(slice(0, size) for size in shape)}
        if sharding is not None:
            places = sharding.addressable_devices_indices_map(shape)
        for device, index in places.items():
            bounds = tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
            self._devices.setdefault(bounds, []).append(device)
        self._buffers = {
            bounds: _aligned(tuple(stop - start for start, stop in bounds), np.dtype(dtype))
            for bounds in self._devices
        }

    def fill(self, layer: int | None, write: Callable[[np.ndarray, Index], None]) -> None:
        """Fill the whole, or one layer of an array that is stacked over layers.

        Args:
            layer: index along the first dimension; None for all.
            write: is given a buffer and which part of the array (of the layer) it is to fill it
                with.
        """
        for bounds, buffer in self._buffers.items():
            index = tuple(slice(*part) for part in bounds)
            if layer is None:
                write(buffer, index)
            elif index[0].start <= layer < index[0].stop:
                write(buffer[layer - index[0].start], index[1:])

    def holds(self, layer: int, columns: slice) -> bool:
        """Whether this process holds any of some columns, along the last dimension, of a layer."""
        return any(
            first[0] <= layer < first[1] and last[0] < columns.stop and columns.start < last[1]
            for first, *_, last in self._buffers
        )

    def finish(self) -> jax.Array:
        """The array; the buffers are the devices' from now on."""
        shards = [
            jax.device_put(self._buffers[bounds], device)
            for bounds, devices in self._devices.items()
            for device in devices
        ]
        self._buffers = {}
        # Until a copy to an accelerator is done, its buffer stays in memory.
        jax.block_until_ready(shards)
        if self._sharding is None:
            return shards[0]
        return jax.make_array_from_single_device_arrays(self.shape, self._sharding, shards)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def on_host(array: Any, layer: int | None = None) -> np.ndarray:
    """An array, or one layer of an array that is stacked over layers, in host memory.

    Where other processes hold parts of it, all of them must call this, in the same order.

    Args:
        array: of JAX or NumPy.
        layer: index along the first dimension; None for all.
    """
    if not isinstance(array, jax.Array):
        return np.asarray(array if layer is None else array[layer])
    if array.is_fully_replicated or len(array.sharding.device_set) == 1:
        return np.asarray(_layer(array.addressable_data(0), layer))
    if not array.is_fully_addressable:
        assert isinstance(array.sharding, NamedSharding)
        whole = NamedSharding(array.sharding.mesh, PartitionSpec())
        return np.asarray(_replicated(whole)(array, layer).addressable_data(0))
    return _joined(array, layer)


def _joined(array: jax.Array, layer: int | None) -> np.ndarray:
    """From shards that all are this process's own."""
    whole = np.empty(array.shape if layer is None else array.shape[1:], array.dtype)
    done = set()
    for shard in array.addressable_shards:
        bounds = tuple(
            part.indices(size)[:2] for part, size in zip(shard.index, array.shape, strict=True)
        )
        inside = layer is None or bounds[0][0] <= layer < bounds[0][1]
        if bounds in done or not inside:
            continue
        done.add(bounds)
        own = None if layer is None else layer - bounds[0][0]
        index = tuple(slice(*part) for part in (bounds if layer is None else bounds[1:]))
        whole[index] = np.asarray(_layer(shard.data, own))
    return whole


def _layer(array: jax.Array, layer: int | None) -> jax.Array:
    """One layer of an array on one device, which inside of the context of a mesh is not of it."""
    if layer is None:
        return array
    alone = Mesh(np.array(list(array.sharding.device_set)), ("alone",))
    with jax.set_mesh(alone):
        return _taken(array, layer)


def _take(array: jax.Array, layer: Any) -> jax.Array:
    """One layer, or all; a traced `layer`, so that all of them are one program."""
    if layer is None:
        return array
    return jax.lax.dynamic_index_in_dim(array, layer, keepdims=False)


_taken = jax.jit(_take)


@functools.cache
def _replicated(whole: NamedSharding) -> Callable[[jax.Array, int | None], jax.Array]:
    return jax.jit(_take, out_shardings=whole)


def row_blocks(shape: tuple[int, ...], itemsize: int) -> Iterator[slice]:
    """The rows of an array, as many at a time as make a few MB."""
    step = max(1, BLOCK_BYTES // max(1, math.prod(shape[1:]) * itemsize))
    for start in range(0, shape[0], step):
        yield slice(start, min(shape[0], start + step))
