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

    def fill(self, place: tuple[int, ...], write: Callable[[np.ndarray, Index], None]) -> None:
        """Fill the whole, or one layer (one expert of one) of an array that is stacked over them.

        Args:
            place: indices along the first dimensions; () for all.
            write: is given a buffer and which part of the array (of the layer) it is to fill it
                with.
        """
        for bounds, buffer in self._buffers.items():
            if _inside(place, bounds):
                own = tuple(
                    number - start for number, (start, _) in zip(place, bounds, strict=False)
                )
                write(buffer[own], tuple(slice(*part) for part in bounds[len(place) :]))

    def holds(self, place: tuple[int, ...], columns: slice) -> bool:
        """Whether this process holds any of some columns, along the last dimension, of a place (see
        `fill`).
        """
        return any(
            _inside(place, bounds)
            and bounds[-1][0] < columns.stop
            and columns.start < bounds[-1][1]
            for bounds in self._buffers
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


def _inside(place: tuple[int, ...], bounds: tuple[tuple[int, int], ...]) -> bool:
    return all(start <= number < stop for number, (start, stop) in zip(place, bounds, strict=False))


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def on_host(array: Any, place: tuple[int, ...] = ()) -> np.ndarray:
    """An array, or one layer (one expert of one) of an array stacked over them, in host memory.

    Where other processes hold parts of it, all of them must call this, in the same order.

    Args:
        array: of JAX or NumPy.
        place: indices along the first dimensions; () for all.
    """
    if not isinstance(array, jax.Array):
        return np.asarray(array[place])
    if array.is_fully_replicated or len(array.sharding.device_set) == 1:
        return np.asarray(_part(array.addressable_data(0), place))
    if not array.is_fully_addressable:
        assert isinstance(array.sharding, NamedSharding)
        whole = NamedSharding(array.sharding.mesh, PartitionSpec())
        return np.asarray(_replicated(whole)(array, place).addressable_data(0))
    return _joined(array, place)


def _joined(array: jax.Array, place: tuple[int, ...]) -> np.ndarray:
    """From shards that all are this process's own."""
    whole = np.empty(array.shape[len(place) :], array.dtype)
    done = set()
    for shard in array.addressable_shards:
        bounds = tuple(
            part.indices(size)[:2] for part, size in zip(shard.index, array.shape, strict=True)
        )
        if bounds in done or not _inside(place, bounds):
            continue
        done.add(bounds)
        own = tuple(number - start for number, (start, _) in zip(place, bounds, strict=False))
        index = tuple(slice(*part) for part in bounds[len(place) :])
        whole[index] = np.asarray(_part(shard.data, own))
    return whole


def _part(array: jax.Array, place: tuple[int, ...]) -> jax.Array:
    """A part of an array on one device, which inside of the context of a mesh is not of it."""
    if not place:
        return array
    alone = Mesh(np.array(list(array.sharding.device_set)), ("alone",))
    with jax.set_mesh(alone):
        return _taken(array, place)


def _take(array: jax.Array, place: tuple[Any, ...]) -> jax.Array:
    """One layer, one expert of one, or all; traced numbers, so that all of them are one program."""
    for number in place:
        array = jax.lax.dynamic_index_in_dim(array, number, keepdims=False)
    return array


_taken = jax.jit(_take)


@functools.cache
def _replicated(whole: NamedSharding) -> Callable[[jax.Array, tuple[int, ...]], jax.Array]:
    return jax.jit(_take, out_shardings=whole)


def row_blocks(shape: tuple[int, ...], itemsize: int) -> Iterator[slice]:
    """The rows of an array, as many at a time as make a few MB."""
    step = max(1, BLOCK_BYTES // max(1, math.prod(shape[1:]) * itemsize))
    for start in range(0, shape[0], step):
        yield slice(start, min(shape[0], start + step))
