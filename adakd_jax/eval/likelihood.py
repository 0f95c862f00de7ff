"""How likely held-out answers are, and how far the student is from the teacher on them."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from adakd_jax.axes import (
    IGNORE,
    Head,
    TokenBatch,
    each_with_its_rows,
    replicated,
    row_axes,
    size_along,
)
from adakd_jax.distill import divergence
from adakd_jax.distill.chunks import chunks_of, take
from adakd_jax.eval.bootstrap import bootstrap_interval
from adakd_jax.eval.calibration import BINS, Calibration, bin_sums, calibration
from adakd_jax.models.output import logits

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
      batches: [B, T] arrays, of one shape if compiling once is wanted. The devices of the context's
        mesh share the rows; empty ones are added where it does not divide them.
      chunk_size: response tokens whose logits are in memory together, on each device.

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
        batch = divided(batch)
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

    On a mesh each device looks at its own rows.
    """
    models = [nnx.merge(student_graphdef, student_params)]
    if teacher_graphdef is not None:
        models.append(nnx.merge(teacher_graphdef, teacher_params))
    hidden = [model(batch.tokens, batch.positions, batch.segments) for model in models]
    heads = [model.head() for model in models]
    weights = [head.weight.astype(states.dtype) for head, states in zip(heads, hidden, strict=True)]
    axes = row_axes()
    rows, whole = P(axes), P()
    run = functools.partial(_sums_of_rows, heads, chunk_size, axes)
    found = each_with_its_rows(run, axes, (whole, rows, rows, rows), (rows, whole))(
        weights, hidden, batch.labels, batch.segments
    )
    return jax.tree.map(replicated, found)


def _sums_of_rows(
    heads: list[Head],
    chunk_size: int,
    axes: tuple[str, ...],
    weights: list[Array],
    hidden: list[Float[Array, "B T D"]],
    labels: Int[Array, "B T"],
    segments: Int[Array, "B T"],
) -> tuple[Float[Array, "B segments 5"], Float[Array, "15 3"]]:
    """The sums of one device's rows, and by confidence those of all devices along `axes`.

    Response tokens are taken in chunks, so that the output embeddings are applied to nothing else
    and [B, T, V] never exists.
    """
    rows, length = labels.shape
    heads = [head._replace(weight=weight) for head, weight in zip(heads, weights, strict=True)]
    states = [each.reshape(labels.size, -1) for each in hidden]
    row, segment = jnp.repeat(jnp.arange(rows), length), jnp.ravel(segments)
    ids = jnp.ravel(labels)
    chunks = chunks_of(ids != IGNORE, chunk_size, axes)

    def add_chunk(index: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        sums, bins = found
        places = chunks.places(index, chunk_size)
        scores = [
            logits(take(each, places), head) for head, each in zip(heads, states, strict=True)
        ]
        known, counted = take(ids, places), places < ids.size
        per_token = _per_token(scores[0], scores[-1], known)
        values = jnp.where(counted[:, None], per_token.T, 0.0)
        bins += bin_sums(scores[0], known, counted)
        return sums.at[row[places], segment[places]].add(values), bins

    # A row of T tokens has at most T documents, numbered from 1.
    sums = jnp.zeros((rows, length + 1, 5), jnp.float32), jnp.zeros((BINS, 3), jnp.float32)
    sums, bins = jax.lax.fori_loop(0, chunks.count, add_chunk, sums)
    return sums, jax.lax.psum(bins, axes) if axes else bins


def divided(batch: TokenBatch) -> TokenBatch:
    """A batch with empty rows at its end, so that the devices of the context's mesh divide its
    rows.
    """
    empty = -len(batch.tokens) % size_along(row_axes())

    def filled(array: Any, value: int) -> Any:
        return np.pad(array, ((0, empty), (0, 0)), constant_values=value)

    zeros = (filled(array, 0) for array in (batch.tokens, batch.positions, batch.segments))
    tokens, positions, segments = zeros
    return TokenBatch(tokens, filled(batch.labels, IGNORE), positions, segments)


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
