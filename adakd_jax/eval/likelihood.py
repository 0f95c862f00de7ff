"""How likely held-out answers are, and how far the student is from the teacher on them."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from adakd_jax.axes import IGNORE, TokenBatch
from adakd_jax.distill import divergence
from adakd_jax.models.decoder import Decoder, logits

_CHUNK = 128  # response tokens whose logits [C, V] exist at a time


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Means over the `tokens` response tokens, in nats per token at temperature 1.

    `top1_agreement` is the share of tokens whose likeliest next token is the teacher's too. What
    compares with a teacher is None without one.
    """

    tokens: int
    nll: float
    nll_teacher: float | None = None
    forward_kl: float | None = None
    reverse_kl: float | None = None
    top1_agreement: float | None = None

    def to_dict(self) -> dict[str, int | float]:
        """The numbers that there are."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value is not None}


def likelihood(
    student_graphdef: nnx.GraphDef,
    student_params: Any,
    teacher_graphdef: nnx.GraphDef | None,
    teacher_params: Any,
    batches: Iterable[TokenBatch],
    *,
    chunk_size: int = _CHUNK,
) -> Likelihood:
    """Measures a student on held-out tokens, and against a teacher if there is one.

    Sums over all response tokens are divided once, so that every token counts the same, however
    rows are packed and batched. Where the two output embeddings differ in size (by padding), the
    divergences are over the tokens that both have.

    Args:
      student_graphdef: structure of a `Decoder`.
      student_params: its parameters; new values do not recompile.
      teacher_graphdef: structure of the teacher, or None.
      teacher_params: its parameters, or None.
      batches: [B, T] arrays, of one shape if compiling once is wanted.
      chunk_size: response tokens whose logits are in memory together.

    Returns:
      The means.

    Raises:
      ValueError: no batch has a response token.
    """
    totals, tokens = np.zeros(5, np.float64), 0
    for batch in batches:
        tokens += int((np.asarray(batch.labels) != IGNORE).sum())
        sums = _batch_sums(
            student_graphdef, teacher_graphdef, chunk_size, student_params, teacher_params, batch
        )
        totals += np.asarray(sums, np.float64)
    if tokens == 0:
        raise ValueError("likelihood needs at least one response token; the batches have none")
    means = [float(total) / tokens for total in totals]
    return Likelihood(tokens, *(means if teacher_graphdef is not None else means[:1]))


@functools.partial(jax.jit, static_argnames=("student_graphdef", "teacher_graphdef", "chunk_size"))
def _batch_sums(
    student_graphdef: nnx.GraphDef,
    teacher_graphdef: nnx.GraphDef | None,
    chunk_size: int,
    student_params: Any,
    teacher_params: Any,
    batch: TokenBatch,
) -> Float[Array, "5"]:
    """Sums over a batch's response tokens, in the order of `Likelihood`'s fields.

    Positions are taken response tokens first and in chunks, so that the output embeddings are
    applied to nothing else and [B, T, V] never exists.
    """
    student = nnx.merge(student_graphdef, student_params)
    teacher = None if teacher_graphdef is None else nnx.merge(teacher_graphdef, teacher_params)
    models = [student] if teacher is None else [student, teacher]
    hidden = [_flat_hidden(model, batch) for model in models]
    labels = jnp.ravel(batch.labels)
    count = jnp.sum(labels != IGNORE)
    order = jnp.argsort(labels == IGNORE, stable=True)
    order = jnp.pad(order, (0, -order.size % chunk_size))

    def add_chunk(index: Array, sums: Float[Array, "5"]) -> Float[Array, "5"]:
        first = index * chunk_size
        places = jax.lax.dynamic_slice_in_dim(order, first, chunk_size)
        scores = [
            logits(states[places], model.head())
            for model, states in zip(models, hidden, strict=True)
        ]
        per_token = _per_token(scores[0], scores[-1], labels[places])
        counted = first + jnp.arange(chunk_size) < count
        return sums + jnp.sum(jnp.where(counted[None, :], per_token, 0.0), axis=1)

    chunks = (count + chunk_size - 1) // chunk_size
    return jax.lax.fori_loop(0, chunks, add_chunk, jnp.zeros(5, jnp.float32))


def _flat_hidden(model: Decoder, batch: TokenBatch) -> Float[Array, "tokens D"]:
    hidden = model(batch.tokens, batch.positions, batch.segments)
    return hidden.reshape(-1, hidden.shape[-1])


def _per_token(
    student: Float[Array, "C V"], teacher: Float[Array, "C W"], labels: Int[Array, " C"]
) -> Float[Array, "5 C"]:
    """Both negative log-likelihoods, both divergences, and whether the likeliest tokens agree."""
    common = min(student.shape[-1], teacher.shape[-1])
    shared = student[:, :common], teacher[:, :common]
    agreement = jnp.argmax(student, axis=-1) == jnp.argmax(teacher, axis=-1)
    return jnp.stack(
        [
            _negative_log_likelihood(student, labels),
            _negative_log_likelihood(teacher, labels),
            divergence("forward_kl", *shared),
            divergence("reverse_kl", *shared),
            agreement.astype(jnp.float32),
        ]
    )


def _negative_log_likelihood(
    scores: Float[Array, "C V"], labels: Int[Array, " C"]
) -> Float[Array, " C"]:
    chosen = jnp.take_along_axis(scores, labels[:, None], axis=-1)[:, 0]
    return jax.nn.logsumexp(scores, axis=-1) - chosen
