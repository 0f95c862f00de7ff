"""The dimension letters and array bundles that every stage shares.

Letters, upper case in einsum strings and shape annotations: A micro-batches of one optimizer step,
B batch rows, T query position, S key position, D embed, N query heads, K key-value heads, H head
dim, F feed-forward, V vocabulary, L layers, C chunk of tokens. Labels use `IGNORE` for positions
that carry no loss.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

IGNORE = -100
BATCH_AXES = ("data", "fsdp")  # mesh axes that share the rows of a batch
WIDTH_AXIS = "fsdp"  # the one of them that also splits weights, along D
HEAD_AXIS = "tensor"  # mesh axis that shares the heads of a layer
EXPERT_AXIS = "expert"  # mesh axis that shares rows and experts, of meshes that have it
# `fsdp` last: so XLA sees that a look-up's parts of D on it become rows by one exchange.
_ALL_BATCH_AXES = ("data", EXPERT_AXIS, "fsdp")

Logits = Float[Array, "*tokens V"]
PerToken = Float[Array, "*tokens"]
TokenMask = Bool[Array, "*tokens"]
TokenIds = Int[Array, "*tokens"]


class CachedTeacher(NamedTuple):
    """A teacher's next-token distributions, kept as k tokens and the mass of all others.

    `ids` int [..., k] are distinct, and a response token's label is one of them; `log_probs`
    [..., k] are theirs and `tail` [...] is the log of the remaining mass, at temperature 1, in
    nats. They mean nothing where there is no label. JAX arrays, or NumPy's on the host.
    """

    ids: Any
    log_probs: Any
    tail: Any


class TokenBatch(NamedTuple):
    """Packed rows: all arrays int32 [B, T], or [A, B, T] for A micro-batches of one step.

    `labels[b, t]` is the token after `tokens[b, t]` where that token is a response token of the
    same document, else `IGNORE`: logits and labels are already aligned. `positions` restart at 0 in
    each document; `segments` numbers the documents of a row from 1, and 0 marks padding. `taught`
    is what a cache holds of the teacher, aligned with `labels`; None where no cache is used.
    """

    tokens: Array
    labels: Array
    positions: Array
    segments: Array
    taught: CachedTeacher | None = None


class Head(NamedTuple):
    """An output embedding: logits = soft_cap·tanh((hidden · weightᵀ + bias)·scale / soft_cap).

    `weight` is [V, D]; `size` counts the tokens that exist: of V logits the first `size` are kept,
    the rest is padding; `bias` is [V].
    """

    weight: Array
    size: int
    bias: Array | None = None
    scale: float = 1.0
    soft_cap: float | None = None


def row_axes() -> tuple[str, ...]:
    """The axes of the context's mesh over which rows are for the compiler to split: none without a
    mesh, and inside a `shard_map` those that it leaves.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(BATCH_AXES) <= set(mesh.axis_names):
        return ()
    return left_axes(batch_axes_of(mesh))


def batch_axes_of(mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
    """The axes of a mesh that share the rows of a batch."""
    return _ALL_BATCH_AXES if EXPERT_AXIS in mesh.axis_names else BATCH_AXES


def taken_row_axes() -> tuple[str, ...]:
    """The axes along which a `shard_map` around the caller has split the rows of a batch."""
    manual = jax.sharding.get_abstract_mesh().manual_axes
    return tuple(axis for axis in _ALL_BATCH_AXES if axis in manual)


def first_row(rows: int) -> Array | int:
    """The number, among all rows of a batch, of the first of the `rows` that a device has inside a
    `shard_map` over rows; 0 elsewhere.
    """
    axes = taken_row_axes()
    return jax.lax.axis_index(axes) * rows if axes else 0


def left_axes(axes: tuple[str, ...]) -> tuple[str, ...]:
    """Those of some mesh axes that no `shard_map` around the caller has taken."""
    manual = jax.sharding.get_abstract_mesh().manual_axes
    return tuple(axis for axis in axes if axis not in manual)


def size_along(axes: tuple[str, ...]) -> int:
    """Devices of the context's mesh along some of its axes; 1 along none."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[axis] for axis in axes)


def each_with_its_rows(
    run: Callable[..., Any], axes: tuple[str, ...], in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """`run`, called on each device along `axes` with that device's part of every argument; other
    mesh axes stay with the compiler. Along no axis: `run` itself.
    """
    if not axes:
        return run
    return jax.shard_map(
        run, in_specs=in_specs, out_specs=out_specs, axis_names=set(axes), check_vma=False
    )


def keep_rows_split(x: Array) -> Array:
    """Hold activations [B, …] split by rows, so that weights are gathered and not activations.

    Does nothing without a mesh, nor to rows that it does not divide.
    """
    axes = row_axes()
    if not axes or x.shape[0] % size_along(axes):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes))


def rows_of(table: Float[Array, "V D"], ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Looks up rows of a table. Inside a `shard_map` that leaves `fsdp` to the compiler, each
    device along it looks up its part of D for all ids that it sees; XLA (to 0.12) fails to split
    such a look-up by itself where `tensor` splits V.
    """
    axes = tuple(axis for axis in row_axes() if axis == WIDTH_AXIS)
    manual = jax.sharding.get_abstract_mesh().manual_axes
    if not manual or table.shape[1] % size_along(axes):
        axes = ()
    wide, whole = PartitionSpec(None, axes), PartitionSpec()
    split = PartitionSpec(None, None, axes)
    return each_with_its_rows(lambda table, ids: table[ids], axes, (wide, whole), split)(table, ids)


def expected_rounds(count: float) -> str:
    """The name of a scope that says how often the loop in it runs, where that depends on data."""
    return f"expected_rounds={count:g}"


def replicated(x: Array) -> Array:
    """Have every device hold the whole array, so that each process can read it; nothing without a
    mesh.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec())
