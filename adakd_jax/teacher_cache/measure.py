"""Whole distributions beside the same cut to k tokens: scores, divergences and losses of both."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from adakd_jax.axes import IGNORE, CachedTeacher, Head, TokenBatch
from adakd_jax.config import Ctkd, DistillConfig
from adakd_jax.distill import (
    DIVERGENCES,
    SCORES,
    Signals,
    keep_top,
    to_buckets,
    vocab_distillation_loss,
)
from adakd_jax.distill.buckets import Compared
from adakd_jax.distill.chunks import buffers_like, chunk_size_for, chunks_of, put, take
from adakd_jax.distill.log_probability import log_probabilities
from adakd_jax.models import logits
from adakd_jax.teacher_cache.weights import kept_tokens

WHOLE = 0  # stands for the whole vocabulary where a k is expected
TAILS = ("bucket", "even")
RATIO, PROGRESS = 0.75, 0.5  # what LATF keeps late in the authors' runs, and half-way of schedules


class Cuts(NamedTuple):
    """What is compared: sizes of caches, tokens to choose from, rounding, and both models'
    structures, the student's first.
    """

    ks: tuple[int, ...]
    vocabulary: int
    dtype: str
    graphdefs: tuple[nnx.GraphDef, nnx.GraphDef]


class Measured(NamedTuple):
    """Numbers of tokens: what each score is made of [n, S] and divergences [n], by name; and the
    mass [n, 2] that student and teacher have outside of the k tokens.
    """

    scores: dict[str, Array]
    divergences: dict[str, Array]
    tails: Array


@functools.partial(jax.jit, static_argnums=0)
def measured_tokens(cuts: Cuts, params: tuple[Any, Any], batch: TokenBatch) -> dict[int, Measured]:
    """By k, `WHOLE` included, numbers of all T tokens of a batch [1, T]; zeros without a label."""
    (student, student_head), (teacher, teacher_head) = _models(cuts, params, batch)
    labels = batch.labels.reshape(-1)
    known = jnp.where(labels == IGNORE, 0, labels)
    size = chunk_size_for(cuts.vocabulary, labels.size)
    chunks = chunks_of(labels != IGNORE, size)

    def look(index: Array) -> tuple[Array, dict[int, Measured]]:
        places = chunks.places(index, size)
        q, p = (
            logits(take(x, places), head)
            for x, head in ((student, student_head), (teacher, teacher_head))
        )
        y = take(known, places)
        found = {WHOLE: _measure(Compared(q, p, y))}
        for k in cuts.ks:
            kept = _rounded(keep_top(p, y, k), cuts.dtype)
            found[k] = _measure(to_buckets(q, kept, y))
        return places, found

    def visit(index: Array, buffers: Any) -> Any:
        return put(buffers, *look(index))

    rows = jax.eval_shape(look, jnp.int32(0))[1]
    return jax.lax.fori_loop(0, chunks.count, visit, buffers_like(rows, labels.size))


@functools.partial(jax.jit, static_argnums=(0, 1))
def loss_errors(
    cuts: Cuts, config: DistillConfig, params: tuple[Any, Any], batch: TokenBatch
) -> list[tuple[Array, Array]]:
    """For each k, and for each kind of `cached_tail`: the relative error of the loss, and that of
    its gradient by the student's hidden states.
    """
    (student, student_head), (teacher, teacher_head) = _models(cuts, params, batch)
    labels = batch.labels.reshape(-1)
    learned = None
    if isinstance(config.temperature, Ctkd):
        learned = {"temperature": jnp.float32(config.temperature.initial)}
    signals = Signals(jnp.float32(RATIO), jnp.float32(PROGRESS), jax.random.key(0), learned)

    def loss(hidden: Array, tail: str, cached: CachedTeacher | None) -> Array:
        taught = (teacher, teacher_head) if cached is None else (None, None)
        method = config.model_copy(update={"cached_tail": tail})
        return vocab_distillation_loss(
            method, hidden, student_head, *taught, labels, signals, cached=cached
        )[0]

    value, gradient = jax.value_and_grad(loss)(student, TAILS[0], None)
    errors = []
    for k in cuts.ks:
        cached = _rounded(kept_tokens(teacher, teacher_head, labels, k), cuts.dtype)
        for tail in TAILS:
            cut_value, cut_gradient = jax.value_and_grad(loss)(student, tail, cached)
            apart = jnp.linalg.norm(cut_gradient - gradient) / jnp.linalg.norm(gradient)
            errors.append((jnp.abs(cut_value - value) / jnp.abs(value), apart))
    return errors


def _models(cuts: Cuts, params: tuple[Any, Any], batch: TokenBatch) -> list[tuple[Array, Head]]:
    """Hidden states [T, D] and head of each model."""
    found = []
    for graphdef, values in zip(cuts.graphdefs, params, strict=True):
        model = nnx.merge(graphdef, values)
        hidden = model(batch.tokens, batch.positions, batch.segments)
        head = model.head()._replace(size=cuts.vocabulary)
        found.append((hidden.reshape(-1, hidden.shape[-1]), head))
    return found


def _measure(compared: Compared) -> Measured:
    q, p, labels = _log_probs(compared)
    whole = compared.whole
    seen = {False: (q, p, labels), True: (q, p, labels) if whole is None else _log_probs(whole)}
    scores = {
        name: rule.statistics(*seen[rule.sees_whole])
        for name, rule in SCORES.items()
        if rule.sees_vocabulary
    }
    divergences = {name: rule(q, p) for name, rule in DIVERGENCES.items()}
    tails = jnp.zeros((len(q), 2))
    if whole is not None:
        tails = jnp.exp(jnp.stack([q[:, -1], p[:, -1]], axis=-1))
    return Measured(scores, divergences, tails)


def _log_probs(compared: Compared) -> tuple[Array, Array, Array]:
    student, teacher = map(log_probabilities, (compared.student, compared.teacher))
    return student, teacher, compared.labels


def _rounded(kept: CachedTeacher, dtype: str) -> CachedTeacher:
    return kept._replace(log_probs=kept.log_probs.astype(dtype).astype(jnp.float32))
