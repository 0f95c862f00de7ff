"""Tokens in the order of their experts, and back: by look-ups alone, in both directions.

The gradient of a look-up would be a sum at places in memory, which is slow on a TPU and comes in
any order on a GPU. Here every row has one place, so that it is a look-up, too.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class TokenOrder(NamedTuple):
    """Where M choices of experts, the same number for each token, stand when sorted by expert.

    `sorted` [M] are the choices in that order, `places` [M] where each of them stands in it;
    `expert` [M] is the expert at each place, E for none, which come last; `sizes` [E] counts the
    choices of each.
    """

    sorted: Array
    places: Array
    expert: Array
    sizes: Array


def by_expert(chosen: Int[Array, "N X"], first: Array | int, count: int) -> TokenOrder:
    """The choices sorted by expert, of `count` experts from `first` on; other choices are none."""
    expert = chosen.reshape(-1) - first
    expert = jnp.where((expert >= 0) & (expert < count), expert, count)
    order = jnp.argsort(expert, stable=True)
    expert = expert[order]
    ends = jnp.searchsorted(expert, jnp.arange(count), side="right")
    return TokenOrder(order, jnp.argsort(order), expert, jnp.diff(ends, prepend=0))


@jax.custom_vjp
def spread(rows: Float[Array, "N D"], order: TokenOrder) -> Float[Array, "M D"]:
    """Each row once for every choice, in their order."""
    return rows[order.sorted // (len(order.sorted) // len(rows))]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def gathered(in_order: Float[Array, "M D"], order: TokenOrder, rows: int) -> Float[Array, "N D"]:
    """The sum over the choices of each of N rows, made in float32: the transpose of `spread`."""
    own = in_order[order.places].reshape(rows, -1, in_order.shape[-1])
    return own.sum(axis=1, dtype=jnp.float32).astype(in_order.dtype)


def _spread_forward(rows, order):
    return spread(rows, order), (order, len(rows))


def _spread_backward(kept, dy):
    order, rows = kept
    return gathered(dy, order, rows), None


def _gathered_forward(in_order, order, rows):
    return gathered(in_order, order, rows), order


def _gathered_backward(rows, order, dy):
    return spread(dy, order), None


spread.defvjp(_spread_forward, _spread_backward)
gathered.defvjp(_gathered_forward, _gathered_backward)
