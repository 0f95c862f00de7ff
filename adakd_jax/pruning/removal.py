"""Which layers a model can do without: those whose absence moves it least from itself."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from adakd_jax.axes import IGNORE, TokenBatch, replicated, row_axes
from adakd_jax.config.distill import (
    AllTokens,
    DistillConfig,
    FixedTemperature,
    ForwardKl,
    UniformScore,
)
from adakd_jax.data.progress import track
from adakd_jax.distill import Signals, vocab_distillation_loss
from adakd_jax.eval.likelihood import divided
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.models.stack import LayerPlace

_FORWARD_KL = DistillConfig(
    score=UniformScore(),
    focus=AllTokens(),
    temperature=FixedTemperature(),
    divergence=ForwardKl(),
)


class Removal(NamedTuple):
    """A layer that was left out, and how far the model then is from the whole: forward KL, in nats
    per response token.
    """

    layer: int
    forward_kl: float


def greedy_removal(
    model: Pretrained,
    batches: Sequence[TokenBatch],
    count: int,
    can_keep: Callable[[Sequence[int]], bool] = lambda layers: True,
) -> list[Removal]:
    """Leaves out one layer after the other: each time the one without which the model is nearest
    to the whole; of equals, the first.

    This takes a forward pass for each layer that is left, in every round. No weight is copied.

    Args:
        model: without adapters.
        batches: NumPy arrays [B, T] of one shape, as `measure_importance` has them.
        count: how many layers are left out; fewer than there are.
        can_keep: see `most_influential`.

    Returns:
        the layers in the order in which they were left out.

    Raises:
        ValueError: `count` leaves no layer, or none that makes a model; or no row has a response
            token.
    """
    total = model.config.num_layers
    if not 0 <= count < total:
        raise ValueError(f"{count} of {total} layers are to be left out; valid: 0 to {total - 1}")
    tokens = sum(int(np.sum(np.asarray(batch.labels) != IGNORE)) for batch in batches)
    if not tokens:
        raise ValueError("no calibration row has a response token; give data.train rows that do")
    batches = [divided(batch) for batch in batches]
    wholes = [_hidden(model.graphdef, model.params, batch) for batch in batches]

    def distance(kept: np.ndarray) -> float:
        sums = [
            np.sum(batch.labels != IGNORE)
            * float(_forward_kl(model.graphdef, model.params, batch, whole, kept))
            for batch, whole in zip(batches, wholes, strict=True)
        ]
        return float(sum(sums)) / tokens

    kept, removed = np.ones(total, bool), []
    for done in range(count):
        left = [n for n in np.flatnonzero(kept).tolist() if can_keep(_without(kept, n))]
        if not left:
            raise ValueError(
                f"of the teacher's layers no fewer than {total - done} make a model of its family; "
                f"valid: {done} to be left out"
            )
        tried = track(left, f"leaving out layer {done + 1} of {count}", len(left))
        found = [distance(kept & (np.arange(total) != layer)) for layer in tried]
        least = int(np.argmin(found))
        removed.append(Removal(left[least], found[least]))
        kept[left[least]] = False
    return removed


def _without(kept: np.ndarray, layer: int) -> list[int]:
    return [n for n in np.flatnonzero(kept).tolist() if n != layer]


@functools.partial(jax.jit, static_argnames="graphdef")
def _hidden(graphdef: nnx.GraphDef, params: Any, batch: TokenBatch) -> Array:
    """Hidden states of the whole model, [B, T, D]."""
    return nnx.merge(graphdef, params)(batch.tokens, batch.positions, batch.segments)


@functools.partial(jax.jit, static_argnames="graphdef")
def _forward_kl(
    graphdef: nnx.GraphDef, params: Any, batch: TokenBatch, whole: Array, kept: Array
) -> Array:
    """KL of the whole model to what is left of it, the mean over response tokens.

    A layer that is not kept is not computed, and new choices do not compile.
    """
    model = nnx.merge(graphdef, params)
    around = functools.partial(_if_kept, kept)
    found = model.forward(batch.tokens, batch.positions, batch.segments, around=around)
    head = model.head()
    loss, _ = vocab_distillation_loss(
        _FORWARD_KL,
        found.hidden,
        head,
        whole,
        head,
        batch.labels,
        Signals(keep_ratio=jnp.float32(1.0), progress=jnp.float32(0.0)),
        batch_axes=row_axes(),
    )
    return replicated(loss)


def _if_kept(
    kept: Array, apply: Callable[..., Any], layer: Any, carry: Any, place: LayerPlace
) -> Any:
    # What a layer that is left out would have made for later ones is that of an earlier one.
    shared = {kind: made for kind, made in place.shared.items() if kind == layer.block}
    return jax.lax.cond(
        kept[place.index], lambda: apply(layer, carry, place), lambda: (carry, shared)
    )
