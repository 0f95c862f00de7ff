"""What the token policy and both models say of chosen tokens, on the device."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from adakd_jax.axes import Head, TokenBatch, replicated
from adakd_jax.config import DistillConfig
from adakd_jax.distill import Signals, vocab_distillation_loss
from adakd_jax.models import logits
from adakd_jax.training.forward import merge, run_models

TOP = 5  # likeliest next tokens that are kept
CHUNK = 128  # tokens whose logits [C, V] exist at a time


class Predictions(NamedTuple):
    """What one model predicts at each of K places.

    Attributes:
        nll: [K], −log probability of the token that follows. Nats.
        probability: [K, 5], of the likeliest tokens, falling.
        token: [K, 5], which tokens these are.
    """

    nll: Array
    probability: Array
    token: Array


class PolicyView(NamedTuple):
    """What the policy decides at each of K places: score, whether kept, temperature τ."""

    score: Array
    selected: Array
    temperature: Array


class TokenView(NamedTuple):
    """Of K tokens; without a teacher, or a distillation loss, its part is None."""

    student: Predictions
    teacher: Predictions | None
    policy: PolicyView | None


class Viewed(NamedTuple):
    """The static half: the loss, and the structure of both models."""

    distill: DistillConfig
    student: nnx.GraphDef
    teacher: nnx.GraphDef | None


@functools.partial(jax.jit, static_argnames="viewed")
def token_view(
    viewed: Viewed,
    student_params: Any,
    teacher_params: Any,
    batch: TokenBatch,
    places: Int[Array, " K"],
    signals: Signals,
) -> TokenView:
    """Look at tokens as a train step would, without training.

    Score, selection and temperature are those that `vocab_distillation_loss` reports with the rows
    as one micro-batch. Probabilities are over the tokens that both models have.

    Args:
        viewed: the loss and the models' structure.
        student_params: weights of the student.
        teacher_params: weights of the teacher, or None.
        batch: [B, T].
        places: flat indices into [B, T] of what is looked at: tokens with a label; K is a multiple
            of `CHUNK`.
        signals: of an optimizer step, with a random key if the policy draws.

    Scope: all devices; the result is whole on each of them.
    """
    student = merge(viewed.student, student_params)
    teacher = merge(viewed.teacher, teacher_params)
    outputs = run_models(student, teacher, batch, ())
    policy = None
    if viewed.distill.has_kd and outputs.teacher_head is not None:
        # Hidden states are compared beside the policy and change nothing of it.
        alone = {"feature_weight": 0.0, "feature_weight_end": None}
        distill = viewed.distill.model_copy(update=alone)
        report = vocab_distillation_loss(distill, *outputs[:4], batch.labels, signals)[1]
        seen = PolicyView(report.scores, report.selected, report.temperature)
        policy = jax.tree.map(lambda x: x.reshape(-1)[places], seen)
    labels = batch.labels.reshape(-1)[places]
    size = min(outputs.student_head.size, (outputs.teacher_head or outputs.student_head).size)
    of_student = _predictions(outputs.student_hidden, outputs.student_head, size, places, labels)
    of_teacher = None
    if outputs.teacher_hidden is not None and outputs.teacher_head is not None:
        of_teacher = _predictions(
            outputs.teacher_hidden, outputs.teacher_head, size, places, labels
        )
    return jax.tree.map(replicated, TokenView(of_student, of_teacher, policy))


def _predictions(
    hidden: Float[Array, "B T D"],
    head: Head,
    size: int,
    places: Int[Array, " K"],
    labels: Int[Array, " K"],
) -> Predictions:
    states = hidden.reshape(-1, hidden.shape[-1])[places]

    def of_chunk(chunk: tuple[Array, Array]) -> Predictions:
        scores = logits(chunk[0], head._replace(size=size)).astype(jnp.float32)
        each = jax.nn.log_softmax(scores, axis=-1)
        of_label = jnp.take_along_axis(each, chunk[1][:, None], axis=-1)[:, 0]
        top, token = jax.lax.top_k(each, TOP)
        return Predictions(-of_label, jnp.exp(top), token)

    chunks = states.reshape(-1, CHUNK, states.shape[-1]), labels.reshape(-1, CHUNK)
    found = jax.lax.map(of_chunk, chunks)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
