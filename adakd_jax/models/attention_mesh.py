"""Attention kernels on a mesh: the compiler cannot split a kernel, so each device gets its part."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from adakd_jax.axes import BATCH_AXES, HEAD_AXIS, row_axes, size_along
from adakd_jax.models.attention_mask import LayerWindow, Window

Kernel = Callable[[Array, Array, Array, Array, Window], Array]


def on_each_device(
    kernel: Kernel,
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
    window: Window,
) -> Float[Array, "B T N H"]:
    """Call a kernel with the rows and heads of each device of the context's mesh; without a mesh,
    with all of them. Inside a `shard_map` over some axes, the others split what a device has.

    Rows that the mesh does not divide (a held-out batch) are not split, nor are query heads;
    key-value heads that it does not divide are repeated, one for each query head.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = set(mesh.axis_names) - set(mesh.manual_axes)
    if not axes or not {*BATCH_AXES, HEAD_AXIS} <= set(mesh.axis_names):
        return kernel(query, key, value, segments, window)
    by_row = row_axes()
    rows = None if query.shape[0] % size_along(by_row) else by_row
    split_heads = HEAD_AXIS in axes and query.shape[2] % mesh.shape[HEAD_AXIS] == 0
    heads = HEAD_AXIS if split_heads else None
    if heads is not None and key.shape[2] % mesh.shape[HEAD_AXIS]:
        copies = query.shape[2] // key.shape[2]
        key, value = jnp.repeat(key, copies, axis=2), jnp.repeat(value, copies, axis=2)
    split = P(rows, None, heads)
    # The layer's index is traced: it must come in as an argument.
    index = window.index if isinstance(window, LayerWindow) else None

    def with_window(query: Array, key: Array, value: Array, segments: Array, index: Array | None):
        if isinstance(window, LayerWindow) and index is not None:
            return kernel(query, key, value, segments, window._replace(index=index))
        return kernel(query, key, value, segments, window)

    return jax.shard_map(
        with_window,
        in_specs=(split, split, split, P(rows), P()),
        out_specs=split,
        axis_names=axes,
        check_vma=False,
    )(query, key, value, segments, index)
