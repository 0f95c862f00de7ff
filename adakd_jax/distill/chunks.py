"""Visiting some tokens of many in chunks of one size: shapes are static, the count is data."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from adakd_jax.distill.devices import ChunkLimits, limits_of

_MULTIPLE = 128  # rows of a TPU's matrix unit; a chunk is a multiple of it where possible


def chunk_size_for(vocabulary: int, tokens: int, limits: ChunkLimits | None = None) -> int:
    """Tokens C whose logits [C, V] exist at a time: as many as pay, if they fit into the memory.

    A chunk of any size reads both heads, and reads and writes the float32 gradient of one: small
    chunks wait for memory. Of large ones the last is emptier.

    Args:
        vocabulary: V.
        tokens: of the micro-batch on this device; more than those are never needed.
        limits: of a device; default: those of the first device of the default backend.

    Returns:
        A multiple of 128 up to `tokens` rounded up, at least 128, or `tokens` if there are fewer.
    """
    if limits is None:
        limits = limits_of(jax.devices()[0])
    fitting = limits.budget // (limits.arrays * 4 * vocabulary)
    wanted = fitting if limits.tokens is None else min(fitting, limits.tokens)
    rounded = max(int(wanted) // _MULTIPLE, 1) * _MULTIPLE
    return max(1, min(rounded, tokens))


class Chunks(NamedTuple):
    """Some tokens in their order, cut into chunks.

    Attributes:
        order: int32 [M·C]; places of the tokens to visit, then the number of all tokens as a place
            that does not exist: a gather there gives zeros, a scatter does nothing.
        count: int32 [], chunks that hold a token (on any device along `axes`); 1 where one holds
            all there can be.
    """

    order: Int[Array, " places"]
    count: Int[Array, ""]

    def places(self, index: Array, size: int) -> Int[Array, " C"]:
        """Places of the chunk `index`, int32 [C]."""
        return jax.lax.dynamic_slice_in_dim(self.order, index * size, size)


def chunks_of(marked: Bool[Array, " tokens"], size: int, axes: tuple[str, ...] = ()) -> Chunks:
    """Cut the marked tokens into chunks of `size`.

    Along the mesh axes `axes` the count is the largest of any device's: all make the same number of
    rounds, so that a collective inside a round finds all its partners.
    """
    capacity = -(-marked.size // size) * size
    order = jnp.nonzero(marked, size=capacity, fill_value=marked.size)[0].astype(jnp.int32)
    if capacity <= size:
        # Nothing to wait for: before each round of a loop whose end is data a GPU asks its host.
        return Chunks(order, jnp.ones((), jnp.int32))
    count = (marked.sum(dtype=jnp.int32) + (size - 1)) // size
    return Chunks(order, jax.lax.pmax(count, axes) if axes else count)


def take(values: Array, places: Int[Array, " C"]) -> Array:
    """Rows of `values` at `places`; zeros at a place that does not exist."""
    return values.at[places].get(mode="fill", fill_value=0)


def put(buffers: Any, places: Int[Array, " C"], rows: Any) -> Any:
    """Write rows [C, …] into buffers [tokens, …], leaf by leaf."""
    return jax.tree.map(
        lambda buffer, row: buffer.at[places].set(row.astype(buffer.dtype), mode="drop"),
        buffers,
        rows,
    )


def scaled(gradient: Any, cotangent: Array) -> Any:
    """A gradient that was computed for the cotangent 1, for another; leaf by leaf, in its dtype."""
    return jax.tree.map(lambda x: (x.astype(cotangent.dtype) * cotangent).astype(x.dtype), gradient)


def buffers_like(rows: Any, tokens: int) -> Any:
    """Zeros [tokens, …] for rows [C, …] given as shapes."""
    return jax.tree.map(lambda row: jnp.zeros((tokens, *row.shape[1:]), row.dtype), rows)
