"""Dropout that draws eight random bits for each value, where 32 are usual."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from adakd_jax.axes import first_row

LEVELS = 256  # of a byte
_BYTES = 4  # of a drawn word


def dropped(rate: float) -> int:
    """How many of the 256 values of a byte mean that a number is zeroed: the nearest, at least 1.

    Args:
        rate: in (0, 1).
    """
    return min(max(round(rate * LEVELS), 1), LEVELS - 1)


def dropout(key: Array, rate: float, x: Float[Array, "B *lead D"]) -> Float[Array, "B *lead D"]:
    """Zero a share of the values, and scale the others so that the mean is as it was.

    The share is the rate rounded to a multiple of 1/256 (0.1: 0.1016), by which the others are
    scaled, too. Which are zeroed depends on the key and on a row's number in the batch, not on the
    mesh or the device that has the row.
    """
    rows = jnp.arange(x.shape[0]) + first_row(x.shape[0])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
    levels = jax.vmap(lambda key: _bytes(key, math.prod(x.shape[1:-1]), x.shape[-1]))(keys)
    kept = levels.reshape(x.shape) >= dropped(rate)
    return jnp.where(kept, x * (LEVELS / (LEVELS - dropped(rate))), jnp.zeros((), x.dtype))


def _bytes(key: Array, tokens: int, width: int) -> UInt32[Array, "tokens width"]:
    """Uniform numbers from 0 to 255; a drawn word has those of four tokens.

    Of four tokens, and not of four numbers of one: taking words apart along the last dimension
    costs a TPU more than drawing them.
    """
    drawn = jax.random.bits(key, (-(-tokens // _BYTES), width), jnp.uint32)
    # Or the compiler would draw a word again for each of its bytes.
    drawn = jax.lax.optimization_barrier(drawn)
    shifts = jnp.arange(0, 8 * _BYTES, 8, dtype=jnp.uint32)
    return ((drawn[None] >> shifts[:, None, None]) & (LEVELS - 1)).reshape(-1, width)[:tokens]
