"""Rows times the matrix of their own group: the product that experts are computed by.

On a TPU this is one kernel of XLA's (`jax.lax.ragged_dot`). Elsewhere XLA would multiply all rows
by the matrices of all groups and mask (JAX 0.12), so that here a loop goes over the groups that
have rows, and over blocks of these.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adakd_jax.axes import expected_rounds

# Rows of a block: an eighth of a group's on average, so that the last block of each, which is half
# empty on average, costs a sixteenth more; but not so few that a product is slow.
_PARTS, _FEWEST, _MOST = 8, 16, 256
# What is summed over in rows · matrix, in rows · matrixᵀ, and in rowsᵀ · rows.
_PLAIN, _TRANSPOSED, _OVER = (
    (((left,), (right,)), ((), ())) for left, right in ((1, 0), (1, 1), (0, 0))
)


def grouped_product(
    x: Float[Array, "M D"],
    kernels: Float[Array, "E D F"],
    sizes: Int[Array, " E"],
    *,
    expected: int | None = None,
) -> Float[Array, "M F"]:
    """The first `sizes[0]` rows times `kernels[0]`, the next `sizes[1]` times the next, and so on.

    Args:
        x: rows, group by group.
        kernels: a matrix for each group, in x's dtype.
        sizes: rows of each group; together at most M.
        expected: how many rows are in groups, about; None: all. It changes the speed alone.

    Returns:
        In x's dtype; rows after those of the last group are 0. Of frozen kernels no gradient is
        computed.
    """
    average = (expected or len(x)) / len(sizes)
    block = min(len(x), block_rows(average))
    case = _Case(block, average / block + 0.5, min(1.0, average) * len(sizes))
    return _product(case, x, kernels, sizes)


class _Case(NamedTuple):
    """Rows of a block; how many blocks a group has on average, and how many groups have any."""

    block: int
    blocks: float
    groups: float


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(case: _Case, x: Array, kernels: Array, sizes: Array) -> Array:
    run = functools.partial(_in_blocks, case, _PLAIN)
    return jax.lax.platform_dependent(x, kernels, sizes, tpu=_ragged, default=run)


def _forward(case, x, kernels, sizes):
    kept = x.value if kernels.perturbed else None
    y = _product(case, x.value, kernels.value, sizes.value)
    return y, (kept, kernels.value if x.perturbed else None, sizes.value)


def _backward(case, kept, dy):
    x, kernels, sizes = kept
    dx = d_kernels = None
    if kernels is not None:
        run = functools.partial(_in_blocks, case, _TRANSPOSED)
        dx = jax.lax.platform_dependent(dy, kernels, sizes, tpu=_ragged_transposed, default=run)
    if x is not None:
        run = functools.partial(_gradient_in_blocks, case)
        d_kernels = jax.lax.platform_dependent(x, dy, sizes, tpu=_ragged_gradient, default=run)
    return dx, d_kernels, None


_product.defvjp(_forward, _backward, symbolic_zeros=True)


def _ragged(x: Array, kernels: Array, sizes: Array) -> Array:
    return _within(jax.lax.ragged_dot(x, kernels, sizes), sizes)


def _ragged_transposed(dy: Array, kernels: Array, sizes: Array) -> Array:
    return _ragged(dy, jnp.swapaxes(kernels, 1, 2), sizes)


def _ragged_gradient(x: Array, dy: Array, sizes: Array) -> Array:
    dimensions = jax.lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=_OVER,
        lhs_ragged_dimensions=[0],
        rhs_group_dimensions=[],
    )
    wide = jnp.float32
    found = jax.lax.ragged_dot_general(x, dy, sizes, dimensions, preferred_element_type=wide)
    return found.astype(x.dtype)


def _within(y: Array, sizes: Array) -> Array:
    """Of rows that are in no group the kernel leaves anything."""
    return jnp.where(jnp.arange(len(y))[:, None] < sizes.sum(), y, jnp.zeros((), y.dtype))


def block_rows(average: float) -> int:
    """Rows of a block, by those of a group."""

    def power(number: float) -> int:
        return 2 ** max(0, math.ceil(math.log2(number)))

    least = min(_FEWEST, power(average))
    return min(_MOST, max(least, power(average / _PARTS)))


def _in_blocks(case: _Case, contracted: Any, x: Array, kernels: Array, sizes: Array) -> Array:
    """Rows times matrices, or times what `contracted` makes of them."""
    [inward] = contracted[0][1]
    width, block = kernels.shape[2 - inward], case.block

    def group(number: Array, start: Array, end: Array, y: Array) -> Array:
        kernel = kernels[number]

        def one(first: Array, own: Array, y: Array) -> Array:
            rows = jax.lax.dynamic_slice_in_dim(x, first, block)
            found = jax.lax.dot_general(rows, kernel, contracted)
            there = jax.lax.dynamic_slice_in_dim(y, first, block)
            return jax.lax.dynamic_update_slice_in_dim(y, jnp.where(own, found, there), first, 0)

        return _each_block(case, len(x), (start, end), one, y)

    return _each_group(case, sizes, group, jnp.zeros((len(x), width), x.dtype))


def _gradient_in_blocks(case: _Case, x: Array, dy: Array, sizes: Array) -> Array:
    """Of the kernels, [E, D, F], each summed in float32."""
    shape, block = (x.shape[1], dy.shape[1]), case.block

    def group(number: Array, start: Array, end: Array, gradients: Array) -> Array:
        def one(first: Array, own: Array, total: Array) -> Array:
            rows, slopes = (jax.lax.dynamic_slice_in_dim(each, first, block) for each in (x, dy))
            slopes = jnp.where(own, slopes, jnp.zeros((), dy.dtype))
            wide = jnp.float32
            return total + jax.lax.dot_general(rows, slopes, _OVER, preferred_element_type=wide)

        total = _each_block(case, len(x), (start, end), one, jnp.zeros(shape, jnp.float32))
        total = total.astype(gradients.dtype)
        return jax.lax.dynamic_update_index_in_dim(gradients, total, number, 0)

    return _each_group(case, sizes, group, jnp.zeros((len(sizes), *shape), x.dtype))


def _each_group(
    case: _Case, sizes: Array, run: Callable[[Array, Array, Array, Array], Array], carry: Array
) -> Array:
    """`run(group, its first row, the row after its last, carry)` for those that have rows."""
    ends = jnp.cumsum(sizes)
    # Those with rows first, in order.
    numbers = jnp.argsort(sizes == 0, stable=True)

    def body(index: Array, carry: Array) -> Array:
        number = numbers[index]
        end = ends[number]
        return run(number, end - sizes[number], end, carry)

    return _loop(case.groups, (sizes > 0).sum(), body, carry)


def _each_block(
    case: _Case,
    rows: int,
    group: tuple[Array, Array],
    run: Callable[[Array, Array, Array], Array],
    carry: Array,
) -> Array:
    """`run(first row, which of the block's rows are its own [block, 1], carry)` for the blocks of
    one group. A block at the end of all rows begins earlier, in rows that are another's.
    """
    (start, end), block = group, case.block

    def body(index: Array, carry: Array) -> Array:
        wanted = start + index * block
        first = jnp.minimum(wanted, rows - block)
        places = (first + jnp.arange(block))[:, None]
        return run(first, (places >= wanted) & (places < end), carry)

    return _loop(case.blocks, -(-(end - start) // block), body, carry)


def _loop(
    expected: float, rounds: Array, body: Callable[[Array, Array], Array], carry: Array
) -> Array:
    """A loop whose program says about how often it runs, for those who count operations in it."""
    with jax.named_scope(expected_rounds(expected)):
        return jax.lax.fori_loop(0, rounds, body, carry)
