"""One number of many by its rank, found without sorting them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_DIGIT = 2  # bits of the answer that a round finds; more are more program to compile


def kth_smallest(values: Float[Array, " n"], index: Int[Array, ""]) -> Float[Array, ""]:
    """`jnp.sort(values)[index]`, NaN last: the same number, at a fraction of a sort's cost.

    The answer is built from its most significant bits on. A round reads the values once and counts
    how many lie below each of three candidates; float32 takes sixteen.

    Args:
        values: at least one, any floating dtype.
        index: from 0 to n − 1.

    No gradient.
    """
    keys = _ordered(jax.lax.stop_gradient(values))
    width = jnp.iinfo(keys.dtype).bits

    def narrow(done: Array, found: Array) -> Array:
        shift = (width - _DIGIT * (done + 1)).astype(keys.dtype)
        digit = jnp.zeros((), jnp.int32)
        for next_digit in range(1, 2**_DIGIT):  # sums beside each other become one read
            candidate = found | (jnp.asarray(next_digit, keys.dtype) << shift)
            below = jnp.sum(keys < candidate, dtype=jnp.int32)
            digit += (below <= index).astype(jnp.int32)
        return found | (digit.astype(keys.dtype) << shift)

    key = jax.lax.fori_loop(0, width // _DIGIT, narrow, jnp.zeros((), keys.dtype))
    return _value(key, values.dtype)


def _ordered(values: Array) -> Array:
    """Unsigned integers in the order of the values; −0 is 0, and every NaN the last."""
    values = jnp.where(values == 0.0, jnp.zeros_like(values), values)
    values = jnp.where(jnp.isnan(values), jnp.full_like(values, jnp.nan), values)
    bits = jax.lax.bitcast_convert_type(values, _unsigned(values.dtype))
    return jnp.where(bits & _sign(bits.dtype), ~bits, bits | _sign(bits.dtype))


def _value(key: Array, dtype: jnp.dtype) -> Array:
    bits = jnp.where(key & _sign(key.dtype), key ^ _sign(key.dtype), ~key)
    return jax.lax.bitcast_convert_type(bits, dtype)


def _unsigned(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.dtype(f"uint{jnp.finfo(dtype).bits}")


def _sign(dtype: jnp.dtype) -> Array:
    return jnp.ones((), dtype) << jnp.asarray(jnp.iinfo(dtype).bits - 1, dtype)
