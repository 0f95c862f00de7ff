"""From logits to the next token: greedy, temperature, top-k, top-p; one key per row."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

_ONE = 0x3F800000  # the bits of float32 1.0
_BLOCK = 256  # tokens of a block in the two-level search of `_inverse_cdf`


def next_tokens(
    logits: Float[Array, "B V"],
    keys: Key[Array, " B"],
    *,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Int[Array, " B"]:
    """Picks one token per row.

    Row b's token depends on `logits[b]` and `keys[b]` alone.

    Args:
      logits: float32, one row per sample.
      keys: one random key per row; unused when `temperature` is 0.
      temperature: divides the logits, ≥ 0; 0 takes the likeliest token, the lower id on a tie.
      top_k: sample among the k likeliest tokens, and those equal to the k-th; 0: among all.
      top_p: then among the fewest likeliest tokens whose renormalised mass reaches `top_p`, and
        those equal to the last; in (0, 1].

    Returns:
      int32 token ids.
    """
    if temperature == 0.0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    scaled = logits.astype(jnp.float32) / temperature
    return _inverse_cdf(kept_mass(scaled, top_k=top_k, top_p=top_p), keys)


def penalised(
    logits: Float[Array, "B V"], held: Bool[Array, "B V"], penalty: float
) -> Float[Array, "B V"]:
    """Makes the tokens that a row holds already less likely (CTRL, arXiv 1909.05858, section 4.1).

    Positive logits are divided by `penalty` and negative ones multiplied, as `transformers` does.
    """
    less = jnp.where(logits > 0, logits / penalty, logits * penalty)
    return jnp.where(held, less, logits)


def kept_mass(
    logits: Float[Array, "B V"], *, top_k: int = 0, top_p: float = 1.0
) -> Float[Array, "B V"]:
    """Unnormalised probabilities, exp(z − max z), with 0 outside top-k and top-p."""
    mass = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    if 0 < top_k < logits.shape[-1]:
        mass = _largest(mass, jnp.ones_like(mass), jnp.full(mass.shape[:1], top_k, mass.dtype))
    if top_p < 1.0:
        mass = _largest(mass, mass, top_p * jnp.sum(mass, axis=-1))
    return mass


def _largest(
    mass: Float[Array, "B V"], weights: Float[Array, "B V"], wanted: Float[Array, " B"]
) -> Float[Array, "B V"]:
    """Zeroes all but the largest entries of `mass`, as few as hold `wanted` of the summed weights.

    Finds the largest threshold that holds enough, by bisection over the bit patterns of [0, 1],
    which are ordered as the numbers are: 31 sums give it exactly, where sorting a vocabulary takes
    far longer.
    """
    bits = jax.lax.bitcast_convert_type(mass, jnp.int32)

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        held = jnp.sum(jnp.where(bits >= middle[:, None], weights, 0.0), axis=-1)
        enough = held >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    rows = mass.shape[:1]
    bounds = (jnp.zeros(rows, jnp.int32), jnp.full(rows, _ONE + 1, jnp.int32))
    threshold, _ = jax.lax.fori_loop(0, 31, halve, bounds)
    return jnp.where(bits >= threshold[:, None], mass, 0.0)


def _inverse_cdf(mass: Float[Array, "B V"], keys: Key[Array, " B"]) -> Int[Array, " B"]:
    """Draws index i with probability mass_i / Σ mass from one uniform number per row.

    First the block, then the token in it: one number and one short sum instead of a Gumbel variate
    per vocabulary entry, and the sums stay exact to float32 rounding.
    """
    blocks = jnp.pad(mass, ((0, 0), (0, -mass.shape[-1] % _BLOCK)))
    blocks = blocks.reshape(mass.shape[0], -1, _BLOCK)
    uniform = jax.vmap(jax.random.uniform)(keys)
    upper = jnp.cumsum(jnp.sum(blocks, axis=-1), axis=-1)
    target = uniform * upper[:, -1]
    block = jnp.argmax(upper > target[:, None], axis=-1)[:, None]
    before = jnp.where(block > 0, jnp.take_along_axis(upper, jnp.maximum(block - 1, 0), axis=1), 0)
    inside = jnp.cumsum(jnp.take_along_axis(blocks, block[:, :, None], axis=1)[:, 0], axis=-1)
    # Rounding may leave the rest at or above the block's own sum: stay inside the block.
    rest = jnp.minimum(target[:, None] - before, inside[:, -1:] * (1 - 2.0**-23))
    within = jnp.argmax(inside > rest, axis=-1)
    return (block[:, 0] * _BLOCK + within).astype(jnp.int32)
