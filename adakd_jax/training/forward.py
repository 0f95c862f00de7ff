"""From weights and a micro-batch to what the loss is computed from."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from adakd_jax.axes import CachedTeacher, Head, TokenBatch
from adakd_jax.config import DistillConfig
from adakd_jax.distill import (
    Denominators,
    Features,
    LossReport,
    Signals,
    distillation_loss,
)
from adakd_jax.models import Decoder, logits
from adakd_jax.models.experts import Routing

LayerPairs = tuple[tuple[int, int], ...]
# What the key of a micro-batch is folded with for dropout: another number than its other uses.
_DROPOUT = 7


class Outputs(NamedTuple):
    """Last hidden states [B, T, D] and output embeddings of both models; None without a teacher.

    `features` are the hidden states that are compared, if any; `routing` what the student's routers
    did, if it has experts.
    """

    student_hidden: Array
    student_head: Head
    teacher_hidden: Array | None
    teacher_head: Head | None
    features: Features | None
    routing: Routing | None

    def within(self, vocabulary: int | None) -> "Outputs":
        """With a student of the first tokens only: those that a cached teacher has chosen from."""
        if vocabulary is None:
            return self
        size = min(self.student_head.size, vocabulary)
        return self._replace(student_head=self.student_head._replace(size=size))


def run_models(
    student: Decoder,
    teacher: Decoder | None,
    batch: TokenBatch,
    layers: LayerPairs,
    rng: Array | None = None,
) -> Outputs:
    """Both forward passes; no gradient reaches the teacher.

    Args:
        student: the model that learns.
        teacher: the model that teaches, or None.
        batch: [B, T].
        layers: (student layer, teacher layer) pairs whose hidden states are compared; the last is
            the last layer of both, whose hidden states are those after the final norm.
        rng: random key of the micro-batch, for the dropout of the student's adapters; None: no
            dropout.
    """
    key = _dropout_key(student, rng)
    own, taken = (tuple(pair[side] for pair in layers) for side in (0, 1))
    of_student, seen, routing = _hidden(student, batch, own, key, with_routing=True)
    if teacher is None:
        return Outputs(of_student, student.head(), None, None, None, routing)
    of_teacher, taught, _ = jax.lax.stop_gradient(_hidden(teacher, batch, taken, None))
    features = None if seen is None or taught is None else Features(seen, taught)
    return Outputs(of_student, student.head(), of_teacher, teacher.head(), features, routing)


def _dropout_key(model: Decoder, rng: Array | None) -> Array | None:
    lora = model.config.lora
    if rng is None or lora is None or lora.dropout == 0:
        return None
    return jax.random.fold_in(rng, _DROPOUT)


def _hidden(
    model: Decoder,
    batch: TokenBatch,
    layers: tuple[int, ...],
    dropout_key: Array | None,
    *,
    with_routing: bool = False,
) -> tuple[Array, Array | None, Routing | None]:
    """The last hidden states, those that are compared, and what the routers did."""
    last, earlier, routing, _ = model.forward(
        batch.tokens,
        batch.positions,
        batch.segments,
        layers[:-1] or None,
        dropout_key=dropout_key,
        with_routing=with_routing,
    )
    if not layers:
        return last, None, routing
    compared = last[..., None, :]
    if earlier is not None:
        compared = jnp.concatenate([earlier, compared], axis=-2)
    return last, compared, routing


def whole_logits_loss(
    config: DistillConfig,
    student_hidden: Array,
    student_head: Head,
    teacher_hidden: Array | None,
    teacher_head: Head | None,
    labels: Array,
    signals: Signals,
    *,
    cached: CachedTeacher | None = None,
    features: Features | None = None,
    denominators: Denominators | None = None,
) -> tuple[Array, LossReport]:
    """`vocab_distillation_loss` by way of [B, T, V]: what benchmarks compare with."""
    size = min(student_head.size, (teacher_head or student_head).size)
    student_logits = logits(student_hidden, student_head._replace(size=size))
    teacher_logits = None
    if teacher_hidden is not None and teacher_head is not None:
        teacher_logits = logits(teacher_hidden, teacher_head._replace(size=size))
    return distillation_loss(
        config,
        student_logits,
        teacher_logits,
        labels,
        signals,
        cached=cached,
        features=features,
        denominators=denominators,
    )


def merge(graphdef: nnx.GraphDef | None, params: Any) -> Any:
    """A model from its two halves; None without one."""
    return None if graphdef is None else nnx.merge(graphdef, params)
