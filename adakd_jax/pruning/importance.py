"""How much the parts of a model matter, by what they do on calibration rows."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from adakd_jax.axes import TokenBatch
from adakd_jax.data.progress import track
from adakd_jax.eval.likelihood import divided
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.pruning.observe import Observed, has_neurons_of_experts, observe


@dataclasses.dataclass(frozen=True)
class Importance:
    """Scores of the parts of a model, larger for what matters more.

    `influence` [L] of layers is 1 − cos(input, output), the mean over `tokens`, in [0, 2]
    (ShortGPT's block influence). The others are norms of activations, as `Observed` says, the means
    over batches (Minitron): `neurons` [L, F], or [L, E, F] of experts; `groups` [A, K] of A layers
    with attention; `channels` [D]. `experts` [L, E] are shares of the router's probability.
    """

    tokens: int
    influence: Float[np.ndarray, " L"]
    neurons: Float[np.ndarray, "*layers F"]
    groups: Float[np.ndarray, "A K"]
    channels: Float[np.ndarray, " D"]
    experts: Float[np.ndarray, "L E"] | None


def measure_importance(model: Pretrained, batches: Sequence[TokenBatch]) -> Importance:
    """One forward pass over some rows, without a gradient and without a copy of the model.

    Args:
        model: without adapters.
        batches: NumPy arrays [B, T] of one shape; all processes give the same. The devices of the
            context's mesh share the rows; the result is the same for any number, up to rounding.

    Raises:
        ValueError: no row has a token.
    """
    total: Any = None
    for batch in track(batches, "observing layers, neurons and heads", len(batches)):
        seen = observe(model.graphdef, model.params, divided(batch))
        seen = jax.tree.map(lambda x: np.asarray(x, np.float64), seen)
        total = seen if total is None else jax.tree.map(np.add, total, seen)
    if total is None or not total.tokens:
        raise ValueError("no calibration row has a token; give data.train rows that do")
    return _finished(total, len(batches), of_experts=has_neurons_of_experts(model.config))


def _finished(total: Observed, batches: int, *, of_experts: bool) -> Importance:
    neurons: Any = np.sqrt(total.neurons) if of_experts else total.neurons / batches
    return Importance(
        tokens=int(total.tokens),
        influence=np.asarray(1.0 - total.cosine / total.tokens),
        neurons=neurons,
        groups=np.asarray(total.groups / batches),
        channels=np.asarray(total.channels / batches),
        experts=None if total.experts is None else np.asarray(total.experts / total.tokens),
    )
