"""Rotary position embedding, in the half-split layout of Hugging Face checkpoints.

References: Su et al., arXiv 2104.09864; scaling by wavelength: Llama 3.1.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from adakd_jax.models.config import Rope


class Rotary(NamedTuple):
    """Cosine and sine of position times frequency, [..., H/2] float32."""

    cos: Array
    sin: Array


def inverse_frequencies(rope: Rope, head_dim: int) -> np.ndarray:
    """Angle per position of each pair of dimensions: θ^(−2i/H), scaled as `rope.kind` says.

    Args:
        rope: base and scaling.
        head_dim: H, even.

    Returns:
        float32 [H/2], radians per position.

    Computed in float32 throughout, as the reference implementations do: a different rounding of the
        frequency shows as
    a phase error proportional to the position.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1.0) / np.power(np.float32(rope.theta), exponents)
    if rope.kind == "linear":
        return (frequencies / np.float32(rope.factor)).astype(np.float32)
    if rope.kind == "llama3":
        return _llama3_frequencies(rope, frequencies)
    return frequencies.astype(np.float32)


def _llama3_frequencies(rope: Rope, frequencies: np.ndarray) -> np.ndarray:
    """Long wavelengths are divided by `factor`, short ones kept, those between interpolated."""
    turns = np.float32(rope.original_positions) * frequencies / np.float32(2 * np.pi)
    smooth = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    smooth = np.clip(smooth, 0.0, 1.0)
    return ((1 - smooth) * frequencies / rope.factor + smooth * frequencies).astype(np.float32)


def rotary_table(
    ropes: tuple[Rope, ...], head_dim: int, positions: Int[Array, "B T"]
) -> tuple[Float[Array, "R B T half"], Float[Array, "R B T half"]]:
    """Cosines and sines of every rope at every position, so that the layers only look them up."""
    frequencies = jnp.asarray(np.stack([inverse_frequencies(rope, head_dim) for rope in ropes]))
    angles = jnp.einsum(
        "RH,BT->RBTH", frequencies, positions.astype(jnp.float32), precision="highest"
    )
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(x: Float[Array, "B T heads H"], rotary: Rotary) -> Float[Array, "B T heads H"]:
    """Rotate the pairs (x_i, x_{i+H/2}) by their angles: in float32, returned in x's dtype."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = rotary.cos[:, :, None, :], rotary.sin[:, :, None, :]
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)
