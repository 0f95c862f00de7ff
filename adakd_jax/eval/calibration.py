"""Whether a model is as often right about the next token as it is sure."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

BINS = 15


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Response tokens by the probability that the model gave to its likeliest next token.

    Bin b of 15 holds confidences in (b/15, (b+1)/15].

    Attributes:
      tokens: [15], response tokens in each bin.
      confidence: [15], sums of that probability.
      correct: [15], how often that token was the one that came.
    """

    tokens: Int[np.ndarray, " 15"]
    confidence: Float[np.ndarray, " 15"]
    correct: Float[np.ndarray, " 15"]

    @property
    def expected_error(self) -> float:
        """Expected calibration error, Σ_b n_b/n · |accuracy_b − confidence_b|, in [0, 1].

        References: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
        """
        return float(np.abs(self.correct - self.confidence).sum() / self.tokens.sum())

    def rows(self) -> list[dict[str, Any]]:
        """The reliability table: the bins that hold tokens, with their means."""
        return [
            {
                "from": index / BINS,
                "to": (index + 1) / BINS,
                "tokens": int(tokens),
                "confidence": float(self.confidence[index] / tokens),
                "accuracy": float(self.correct[index] / tokens),
            }
            for index, tokens in enumerate(self.tokens)
            if tokens
        ]


def calibration(sums: Float[np.ndarray, "15 3"]) -> Calibration:
    """From what `bin_sums` gave, added up."""
    tokens, confidence, correct = np.asarray(sums, np.float64).T
    return Calibration(np.rint(tokens).astype(np.int64), confidence, correct)


def bin_sums(
    scores: Float[Array, "C V"], labels: Int[Array, " C"], counted: Bool[Array, " C"]
) -> Float[Array, "15 3"]:
    """Adds up tokens, confidence and correct predictions by bin.

    Args:
      scores: logits of the next token.
      labels: the token that came; anything where not counted.
      counted: which positions are response tokens.
    """
    best = jnp.argmax(scores, axis=-1)
    confidence = jnp.exp(jnp.max(scores, axis=-1) - jax.nn.logsumexp(scores, axis=-1))
    bins = jnp.clip(jnp.ceil(confidence * BINS).astype(jnp.int32) - 1, 0, BINS - 1)
    values = jnp.stack([jnp.ones_like(confidence), confidence, (best == labels) * 1.0], axis=1)
    return jnp.zeros((BINS, 3)).at[bins].add(jnp.where(counted[:, None], values, 0.0))
