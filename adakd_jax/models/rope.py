"""Rotary position embedding, in the layouts of Hugging Face checkpoints.

References: Su et al., arXiv 2104.09864; scalings: see `Rope`.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from adakd_jax.models.config import QueryScale, Rope


class Rotary(NamedTuple):
    """Cosine and sine of position times frequency, [B, T, H/2] float32, and what queries are
    multiplied by, [B, T], or None.
    """

    cos: Array
    sin: Array
    query_scale: Array | None = None


def inverse_frequencies(rope: Rope, head_dim: int) -> np.ndarray:
    """Angle per position of each pair of dimensions: θ^(−2i/H), scaled as `rope.kind` says.

    Args:
        rope: base and scaling.
        head_dim: H, even: numbers of a head that are rotated.

    Returns:
        float32 [H/2], radians per position; of `longrope` and `dynamic` those of a short row.

    Computed in float32 throughout, as the reference implementations do: a different rounding of the
    frequency shows as a phase error proportional to the position.
    """
    if rope.kind == "none":
        return np.zeros(head_dim // 2, np.float32)
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    powers = np.power(np.float32(rope.theta), exponents)
    if rope.kind == "longrope":
        return np.float32(1.0) / (np.array(rope.short_factors, np.float32) * powers)
    frequencies = np.float32(1.0) / powers
    if rope.kind == "proportional":
        frequencies[int(rope.share * head_dim // 2) :] = 0.0
    if rope.kind in ("linear", "proportional"):
        return (frequencies / np.float32(rope.factor)).astype(np.float32)
    if rope.kind == "llama3":
        return _llama3_frequencies(rope, frequencies)
    if rope.kind == "yarn":
        return _yarn_frequencies(rope, frequencies)
    return frequencies.astype(np.float32)


def _llama3_frequencies(rope: Rope, frequencies: np.ndarray) -> np.ndarray:
    """Long wavelengths are divided by `factor`, short ones kept, those between interpolated."""
    turns = np.float32(rope.original_positions) * frequencies / np.float32(2 * np.pi)
    smooth = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    smooth = np.clip(smooth, 0.0, 1.0)
    return ((1 - smooth) * frequencies / rope.factor + smooth * frequencies).astype(np.float32)


def _yarn_frequencies(rope: Rope, frequencies: np.ndarray) -> np.ndarray:
    """As `llama3`, but the passage is linear in the number of the pair."""
    pairs = len(frequencies)

    def pair_that_turns(times: float) -> float:
        wavelengths = rope.original_positions / (times * 2 * math.pi)
        return pairs * math.log(wavelengths) / math.log(rope.theta)

    first, last = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    width = (last - first) or 0.001
    passage = np.clip((np.arange(pairs, dtype=np.float32) - first) / width, 0, 1)
    kept = np.float32(1.0) - passage.astype(np.float32)
    divided = frequencies / np.float32(rope.factor)
    return (divided * (1 - kept) + frequencies * kept).astype(np.float32)


def rotary_table(
    ropes: tuple[Rope, ...], head_dim: int, positions: Int[Array, "B T"], length: int | None = None
) -> tuple[Float[Array, "R B T half"], Float[Array, "R B T half"]]:
    """Cosines and sines of every rope at every position, so that the layers only look them up.

    `longrope` and `dynamic` go by the length of the whole: `length`, or that of each document.
    """
    frequencies = jnp.asarray(np.stack([inverse_frequencies(rope, head_dim) for rope in ropes]))
    angles = jnp.einsum(
        "RH,BT->RBTH", frequencies, positions.astype(jnp.float32), precision="highest"
    )
    changing = [n for n, rope in enumerate(ropes) if rope.kind in ("longrope", "dynamic")]
    if changing:
        lengths = _document_lengths(positions) if length is None else jnp.full((1, 1), length)
        for n in changing:
            angles = angles.at[n].multiply(_change_of_long(ropes[n], head_dim, lengths[..., None]))
    factors = np.array([rope.attention_factor for rope in ropes], np.float32)[:, None, None, None]
    if np.all(factors == 1.0):
        return jnp.cos(angles), jnp.sin(angles)
    return jnp.cos(angles) * factors, jnp.sin(angles) * factors


def _change_of_long(rope: Rope, head_dim: int, length: Int[Array, "B T 1"]) -> Array:
    """What the frequencies of a row of this length are multiplied by."""
    original = rope.original_positions
    if rope.kind == "longrope":
        change = np.array(rope.short_factors) / np.array(rope.long_factors)
        return jnp.where(length > original, jnp.asarray(change[None, None], jnp.float32), 1.0)
    longer = jnp.maximum(length, original).astype(jnp.float32) / original
    growth = rope.factor * longer - (rope.factor - 1)
    # θ times growth^(H/(H−2)), raised to −2i/H.
    exponents = -np.arange(0, head_dim, 2, dtype=np.float32) / (head_dim - 2)
    return growth ** jnp.asarray(exponents[None, None])


def _document_lengths(positions: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Of the document of each token: it ends where the next position is not one more."""
    count = positions.shape[1]
    goes_on = jnp.pad(positions[:, 1:] == positions[:, :-1] + 1, ((0, 0), (0, 1)))
    ends = jnp.where(goes_on, count - 1, jnp.arange(count))
    ends = jax.lax.cummin(ends, axis=1, reverse=True)
    return jnp.take_along_axis(positions, ends, axis=1) + 1


def query_scales(scale: QueryScale, positions: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """What queries are multiplied by."""
    periods = (positions // scale.original_positions).astype(jnp.float32)
    return 1.0 + scale.beta * jnp.log1p(periods)


def apply_rope(
    x: Float[Array, "B T heads H"], rotary: Rotary, *, neighbours: bool = False
) -> Float[Array, "B T heads H"]:
    """Rotate the pairs (x_i, x_{i+H/2}), or (x_{2i}, x_{2i+1}), by their angles: in float32,
    returned in x's dtype. Where there are fewer angles, the last numbers stay as they are.
    """
    count = 2 * rotary.cos.shape[-1]
    wide = x[..., :count].astype(jnp.float32)
    first, second = (wide[..., 0::2], wide[..., 1::2]) if neighbours else jnp.split(wide, 2, -1)
    cos, sin = rotary.cos[:, :, None, :], rotary.sin[:, :, None, :]
    turned = [first * cos - second * sin, second * cos + first * sin]
    if neighbours:
        rotated = jnp.stack(turned, axis=-1).reshape(wide.shape)
    else:
        rotated = jnp.concatenate(turned, axis=-1)
    rotated = rotated.astype(x.dtype)
    return rotated if count == x.shape[-1] else jnp.concatenate([rotated, x[..., count:]], axis=-1)
