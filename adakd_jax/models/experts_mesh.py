"""Experts on a mesh: each device computes what its own experts make of the tokens it sees."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from adakd_jax.axes import EXPERT_AXIS, HEAD_AXIS, row_axes, size_along


class Kernels(NamedTuple):
    """Of the experts of one layer: [E, D, F], [E, D, F] and [E, F, D], biases [E, …] or None."""

    gate: Array
    gate_bias: Array | None
    up: Array
    up_bias: Array | None
    down: Array
    down_bias: Array | None


# (tokens, weights, chosen experts, kernels, number of the first of them) → their part of the sum,
# [B, …]
Run = Callable[[Array, Array, Array, Kernels, Array | int], Array]


def on_each_device(
    run: Run,
    x: Float[Array, "B T D"],
    weights: Float[Array, "B T X"],
    chosen: Int[Array, "B T X"],
    kernels: Kernels,
) -> Float[Array, "B ..."]:
    """Sum over all experts of what `run` gives for each row; without a mesh, `run` itself.

    Tokens stay on the device that has their row, so that sorting them by expert moves none. Devices
    along `expert` have different rows as well as different experts: they show one another all of
    these rows, and each takes back the sums of its own. Along `tensor` each computes a part of
    every expert. Inside a `shard_map` over some axes, the others split what a device has. Rows that
    the mesh does not divide (a held-out batch) are not split.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = set(mesh.axis_names) - set(mesh.manual_axes)
    if not axes or HEAD_AXIS not in mesh.axis_names:
        return run(x, weights, chosen, kernels, 0)
    by_row = row_axes()
    rows = None if x.shape[0] % size_along(by_row) else by_row
    experts = EXPERT_AXIS if EXPERT_AXIS in axes else None
    divides = HEAD_AXIS in axes and kernels.gate.shape[2] % size_along((HEAD_AXIS,)) == 0
    parts = HEAD_AXIS if divides else None
    shown = experts is not None and rows is not None and experts in rows

    def on_one(x: Array, weights: Array, chosen: Array, kernels: Kernels) -> Array:
        first = 0
        if experts is not None:
            first = jax.lax.axis_index(experts) * len(kernels.gate)
        if shown:
            x, weights, chosen = (
                jax.lax.all_gather(each, experts, tiled=True) for each in (x, weights, chosen)
            )
        y = run(x, weights, chosen, kernels, first)
        if parts is not None:
            y = jax.lax.psum(y, parts)
        if shown:
            return jax.lax.psum_scatter(y, experts, tiled=True)
        return y if experts is None else jax.lax.psum(y, experts)

    return jax.shard_map(
        on_one,
        in_specs=(P(rows), P(rows), P(rows), _splits(kernels, experts, parts)),
        out_specs=P(rows),
        axis_names=axes,
        check_vma=False,
    )(x, weights, chosen, kernels)


def _splits(kernels: Kernels, experts: str | None, parts: str | None) -> Kernels:
    """Which axes split what, in place of the arrays."""
    of_bias = None if kernels.gate_bias is None else P(experts, parts)
    of_down_bias = None if kernels.down_bias is None else P(experts)
    wide, narrow = P(experts, None, parts), P(experts, parts)
    return Kernels._make((wide, of_bias, wide, of_bias, narrow, of_down_bias))
