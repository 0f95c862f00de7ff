"""Dropout that draws eight random bits for each value, where 32 are usual."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LEVELS = 256  # of a byte
_BYTES = 4  # of a drawn word


def dropped(rate: float) -> int:
    """How many of the 256 values of a byte mean that a number is zeroed: the nearest, at least 1.

    Args:
        rate: in (0, 1).
    """
    return min(max(round(rate * LEVELS), 1), LEVELS - 1)


def dropout(key: Array, rate: float, x: Float[Array, "*lead D"]) -> Float[Array, "*lead D"]:
    """Zero a share of the values, and scale the others so that the mean is as it was.

    The share is the rate rounded to a multiple of 1/256 (0.1: 0.1016), by which the others are
    scaled, too. The key alone decides which: not the mesh, and not the process.
    """
    words = -(-x.shape[-1] // _BYTES)
    drawn = jax.random.bits(key, (*x.shape[:-1], words), jnp.uint32)
    # The generator makes 32 bits for whatever is asked of it.
    levels = jax.lax.bitcast_convert_type(drawn, jnp.uint8).reshape(*x.shape[:-1], -1)
    kept = levels[..., : x.shape[-1]] >= dropped(rate)
    return jnp.where(kept, x * (LEVELS / (LEVELS - dropped(rate))), jnp.zeros((), x.dtype))
