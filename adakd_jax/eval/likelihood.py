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

from adakd_jax.axes import IGNORE, TokenBatch, replicated
from adakd_jax.distill import divergence
from adakd_jax.eval.bootstrap import bootstrap_interval
from adakd_jax.eval.calibration import BINS, Calibration, bin_sums, calibration
from adakd_jax.models.decoder import Decoder, logits

_CHUNK = 128  # response tokens whose logits [C, V] exist at a time


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Means over the `tokens` response tokens, in nats per token at temperature 1.

    `top1_agreement` is the share of tokens whose likeliest next token is the teacher's too. What
    compares with a teacher is None without one. `calibration_error` is the expected calibration
    error of the student's likeliest next tokens, in [0, 1].
    """

    tokens: int
    nll: float
    nll_teacher: float | None = None
    forward_kl: float | None = None
    reverse_kl: float | None = None
    top1_agreement: float | None = None
    calibration_error: float | None = None

    def to_dict(self) -> dict[str, int | float]:
        """The numbers that there are."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class DocumentSums:
    """The same by document, as sums: what resampling documents needs.

    Documents stand in the order of the packed rows, which follows from the data alone: document n
    is the same one whichever model is measured.

    Attributes:
      tokens: [N], response tokens of each document, at least 1.
      sums: [N, 5], nats and agreements over them, in the order of `Likelihood`'s fields.
      has_teacher: whether all but the first column mean anything.
      calibration: of the student, over the tokens of all documents.
    """

    tokens: Int[np.ndarray, " N"]
    sums: Float[np.ndarray, "N 5"]
    has_teacher: bool
    calibration: Calibration

    def likelihood(self) -> Likelihood:
        """The means over all tokens."""
        tokens = int(self.tokens.sum())
        means = [float(total) / tokens for total in self.sums.sum(axis=0)]
        return Likelihood(
            tokens,
            *(means if self.has_teacher else means[:1]),
            calibration_error=self.calibration.expected_error,
        )

    def intervals(self, *, seed: int = 0) -> dict[str, tuple[float, float]]:
        """A 95% bootstrap interval over documents of each of the means, by name."""
        names = [field.name for field in dataclasses.fields(Likelihood)][1:]
        columns = zip(names, self.sums.T, strict=False)  # calibration has no sums by document
        return {
            name: bootstrap_interval(sums, self.tokens, seed=seed)
            for name, sums in columns
            if self.has_teacher or name == "nll"
        }


def likelihood(
    student_graphdef: nnx.GraphDef,
    student_params: Any,
    teacher_graphdef: nnx.GraphDef | None,
    teacher_params: Any,
    batches: Iterable[TokenBatch],
    *,
    chunk_size: int = _CHUNK,
) -> Likelihood:
    """The means of `document_sums` over all documents; same arguments, same errors."""
    measured = document_sums(
        student_graphdef,
        student_params,
        teacher_graphdef,
        teacher_params,
        batches,
        chunk_size=chunk_size,
    )
    return measured.likelihood()


def document_sums(
    student_graphdef: nnx.GraphDef,
    student_params: Any,
    teacher_graphdef: nnx.GraphDef | None,
    teacher_params: Any,
    batches: Iterable[TokenBatch],
    *,
    chunk_size: int = _CHUNK,
) -> DocumentSums:
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
      The sums of every document that has a response token.

    Raises:
      ValueError: no batch has a response token, or one holds a token that a model has not.
    """
    tokens, sums = [np.zeros(0, np.int64)], [np.zeros((0, 5))]
    by_confidence = np.zeros((BINS, 3))
    size = nnx.merge(student_graphdef, student_params).config.vocab_size
    if teacher_graphdef is not None:
        size = min(size, nnx.merge(teacher_graphdef, teacher_params).config.vocab_size)
    for batch in batches:
        _check_ids(batch, size)
        found, bins = _batch_sums(
            student_graphdef, teacher_graphdef, chunk_size, student_params, teacher_params, batch
        )
        counted = _response_tokens(batch)
        tokens.append(counted[counted > 0])
        sums.append(np.asarray(found, np.float64)[counted > 0])
        by_confidence += np.asarray(bins, np.float64)
    if not any(map(len, tokens)):
        raise ValueError("likelihood needs at least one response token; the batches have none")
    return DocumentSums(
        np.concatenate(tokens),
        np.concatenate(sums),
        teacher_graphdef is not None,
        calibration(by_confidence),
    )


@functools.partial(jax.jit, static_argnames=("student_graphdef", "teacher_graphdef", "chunk_size"))
def _batch_sums(
    student_graphdef: nnx.GraphDef,
    teacher_graphdef: nnx.GraphDef | None,
    chunk_size: int,
    student_params: Any,
    teacher_params: Any,
    batch: TokenBatch,
) -> tuple[Float[Array, "B segments 5"], Float[Array, "15 3"]]:
    """Sums over the response tokens of each document of a batch, in the order of `Likelihood`'s
    fields; and over those of all documents by confidence.

    Positions are taken response tokens first and in chunks, so that the output embeddings are
    applied to nothing else and [B, T, V] never exists.
    """
    student = nnx.merge(student_graphdef, student_params)
    teacher = None if teacher_graphdef is None else nnx.merge(teacher_graphdef, teacher_params)
    models = [student] if teacher is None else [student, teacher]
    hidden = [_flat_hidden(model, batch) for model in models]
    labels = jnp.ravel(batch.labels)
    rows, length = batch.labels.shape
    row, segment = jnp.repeat(jnp.arange(rows), length), jnp.ravel(batch.segments)
    count = jnp.sum(labels != IGNORE)
    order = jnp.argsort(labels == IGNORE, stable=True)
    order = jnp.pad(order, (0, -order.size % chunk_size))

    def add_chunk(index: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        sums, bins = found
        first = index * chunk_size
        places = jax.lax.dynamic_slice_in_dim(order, first, chunk_size)
        scores = [
            logits(states[places], model.head())
            for model, states in zip(models, hidden, strict=True)
        ]
        per_token = _per_token(scores[0], scores[-1], labels[places])
        counted = first + jnp.arange(chunk_size) < count
        values = jnp.where(counted[:, None], per_token.T, 0.0)
        bins += bin_sums(scores[0], labels[places], counted)
        return sums.at[row[places], segment[places]].add(values), bins

    # A row of T tokens has at most T documents, numbered from 1.
    sums = jnp.zeros((rows, length + 1, 5), jnp.float32), jnp.zeros((BINS, 3), jnp.float32)
    chunks = (count + chunk_size - 1) // chunk_size
    return jax.tree.map(replicated, jax.lax.fori_loop(0, chunks, add_chunk, sums))


def _check_ids(batch: TokenBatch, size: int) -> None:
    """An embedding gives its last row for an id beyond it, and a likelihood is NaN."""
    largest = max(int(np.max(batch.tokens)), int(np.max(batch.labels)))
    if largest >= size:
        raise ValueError(
            f"a batch holds token {largest}, but a model has {size} only; valid: ids up to "
            f"{size - 1}, or models whose embeddings are resized"
        )


def _response_tokens(batch: TokenBatch) -> Int[np.ndarray, "B segments"]:
    """How many each document has, in the layout of `_batch_sums`."""
    segments, is_response = np.asarray(batch.segments), np.asarray(batch.labels) != IGNORE
    size = segments.shape[1] + 1
    counts = [
        np.bincount(row[learned], minlength=size)
        for row, learned in zip(segments, is_response, strict=True)
    ]
    return np.stack(counts)


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
