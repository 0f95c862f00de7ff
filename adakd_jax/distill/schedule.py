"""Numbers that move over the optimizer steps of a run."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

Shape = Literal["linear", "cosine"]


def moving(start: float, end: float, shape: Shape, progress: Float[Array, ""]) -> Float[Array, ""]:
    """From `start` at progress 0 to `end` at progress 1: along a line, or half a cosine.

    Args:
        start: value at the first step.
        end: value at the end of the run.
        shape: how it moves.
        progress: optimizer steps done over all optimizer steps, in [0, 1].
    """
    done = progress if shape == "linear" else 0.5 * (1.0 - jnp.cos(jnp.pi * progress))
    return (1.0 - done) * start + done * end
