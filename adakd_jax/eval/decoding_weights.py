"""A model's weights as decoding reads them: whole on each device, and in the compute dtype."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, Sharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import DictKey
from jaxtyping import Array

from adakd_jax.axes import row_axes, size_along
from adakd_jax.models.cache import init_cache
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.layer_views import layer_views

# Parameters that a model casts to its compute dtype before anything else; norms it does not.
_CAST = ("kernel", "embedding", "a", "b")
_SHARE = 0.9  # of the free memory that copies and cache may take
_Target = tuple[str, Sharding | None]


class Weights(NamedTuple):
    """What decoding reads.

    Attributes:
        params: the model's parameters.
        views: those of its layers one by one, where that costs no memory.
        axes: mesh axes along which they are whole, so that rows can be shared.
    """

    params: Any
    views: tuple[Any, ...] | None
    axes: tuple[str, ...]


def weights_for(config: DecoderConfig, params: Any, *, rows: int, length: int) -> Weights:
    """Weights for any number of tokens, gathered and cast once.

    Every token reads all weights. Split over the devices that share the rows (`fsdp`), they would
    have to be gathered for each token; so they are gathered once, for as long as the answers take,
    as a copy in the compute dtype, if that is narrower: in bfloat16, two bytes a parameter by the
    size of `tensor`.
    Where a device has no room for it beside what it holds, weights stay where they are and the rows
    are shared along `data` alone; then it is activations that cross `fsdp` for each token.

    Args:
        config: of the model.
        params: its parameters; on a mesh, with the shardings of the context's.
        rows: prompts decoded together.
        length: tokens of the longest prompt with its answer.
    """
    axes = row_axes()
    leaves, tree = jax.tree.flatten_with_path(params)
    targets = [_target(config, path, leaf, axes) for path, leaf in leaves]
    moved = [index for index, target in enumerate(targets) if target is not None]
    if not moved:
        return Weights(params, layer_views(config, params["layers"]), axes)
    wanted = [targets[index] for index in moved]
    needed = _cache_bytes(config, rows, length) / size_along(axes)
    needed += sum(
        _bytes_a_device(leaves[index][1], *target)
        for index, target in zip(moved, wanted, strict=True)
        if target is not None
    )
    if not _have_room_for(needed):
        return Weights(params, None, tuple(axis for axis in axes if axis == "data"))
    copies = _copies(tuple(wanted), [leaves[index][1] for index in moved])
    held = [leaf for _, leaf in leaves]
    for index, copy in zip(moved, copies, strict=True):
        held[index] = copy
    params = jax.tree.unflatten(tree, held)
    return Weights(params, layer_views(config, params["layers"]), axes)


def weights_are_split(axes: tuple[str, ...]) -> bool:
    """Whether the context's mesh has devices along other axes than these."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.size > size_along(axes)


def _target(
    config: DecoderConfig, path: Sequence[Any], leaf: Any, axes: tuple[str, ...]
) -> _Target | None:
    """Dtype and sharding of a parameter's copy; None if none is needed."""
    last, narrow = path[-1], jnp.dtype(config.compute_dtype)
    cast = isinstance(last, DictKey) and last.key in _CAST
    cast = cast and narrow.itemsize < leaf.dtype.itemsize
    dtype = str(narrow if cast else leaf.dtype)
    sharding = _whole_along(leaf.sharding, axes)
    if sharding == leaf.sharding:
        sharding = None
    same = sharding is None and dtype == str(leaf.dtype)
    return None if same else (dtype, sharding)


def _whole_along(sharding: Sharding, axes: tuple[str, ...]) -> Sharding:
    if not isinstance(sharding, NamedSharding):
        return sharding

    def kept(entry: Any) -> Any:
        names = entry if isinstance(entry, tuple) else (entry,)
        left = tuple(name for name in names if name is not None and name not in axes)
        return left[0] if len(left) == 1 else left or None

    return NamedSharding(sharding.mesh, P(*map(kept, sharding.spec)))


@functools.partial(jax.jit, static_argnums=0)
def _copies(targets: tuple[_Target, ...], leaves: list[Array]) -> list[Array]:
    copies = []
    for (dtype, sharding), leaf in zip(targets, leaves, strict=True):
        copy = leaf.astype(dtype)
        if sharding is not None:
            copy = jax.lax.with_sharding_constraint(copy, sharding)
        copies.append(copy)
    return copies


def _bytes_a_device(leaf: Any, dtype: str, sharding: Sharding | None) -> int:
    shape = (sharding or leaf.sharding).shard_shape(leaf.shape)
    return math.prod(shape) * jnp.dtype(dtype).itemsize


def _cache_bytes(config: DecoderConfig, rows: int, length: int) -> int:
    cache = jax.eval_shape(lambda: init_cache(config, rows, length, config.compute_dtype))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache))


def _have_room_for(needed: float) -> bool:
    """Whether each device of each process does, by what it tells; a CPU tells nothing."""
    free = [np.inf]
    for device in jax.local_devices():
        told = device.memory_stats() or {}
        if "bytes_limit" in told:
            free.append(told["bytes_limit"] - told["bytes_in_use"])
    least = np.float64(min(free))
    if jax.process_count() > 1:  # which must all do the same
        least = multihost_utils.process_allgather(np.float32(least)).min()
    return bool(needed <= _SHARE * least)
