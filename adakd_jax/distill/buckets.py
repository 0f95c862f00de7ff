"""A vocabulary cut to a few named tokens and one bucket for all others.

What a cache keeps of a teacher. The log-probabilities of the k + 1 buckets are logits of a
vocabulary of k + 1 tokens, so every score, divergence and temperature works on them as it is.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adakd_jax.axes import CachedTeacher, Logits, TokenIds
from adakd_jax.distill.log_probability import log_probabilities

BucketLogits = Float[Array, "*tokens K+1"]


def keep_top(logits: Logits, labels: TokenIds, k: int) -> CachedTeacher:
    """What a cache keeps of a teacher: its k likeliest tokens, in that order, and the rest as one.

    A label that is not among them takes the place of the last.

    Args:
        logits: [..., V].
        labels: [...], ids below V.
        k: from 1 to V.
    """
    ids = jax.lax.top_k(logits, k)[1]
    absent = ~jnp.any(ids == labels[..., None], axis=-1, keepdims=True)
    is_last = jnp.arange(k) == k - 1
    replaced = absent & is_last.reshape((1,) * labels.ndim + (k,))
    ids = jnp.where(replaced, labels[..., None].astype(ids.dtype), ids)
    buckets = log_probabilities(bucket_logits(logits, ids))
    return CachedTeacher(ids, buckets[..., :-1], buckets[..., -1])


class Compared(NamedTuple):
    """Logits [..., V'] of both models over the same V' entries, and the labels' entries [...].

    Where these are buckets, `whole` is the same over the whole vocabulary, as far as it is known.
    """

    student: Any
    teacher: Any
    labels: Any
    whole: Any = None


def compared_with(
    tail: str, student_logits: Logits, cached: CachedTeacher, labels: TokenIds
) -> Compared:
    """A student beside a cached teacher: as buckets, or, where `tail` is "even", over the whole
    vocabulary with the teacher's remaining mass spread evenly.

    Buckets are exact for equal models and never overestimate a divergence, but they ask nothing of
    the student's distribution over the tokens that the cache does not name. Spreading asks for an
    even one, and equal models have a small loss.

    Args:
        tail: `DistillConfig.cached_tail`.
        student_logits: [..., V].
        cached: see `to_buckets`.
        labels: [...], ids below V.
    """
    if tail == "even":
        return Compared(student_logits, spread(cached, student_logits.shape[-1]), labels)
    return to_buckets(student_logits, cached, labels)


def to_buckets(student_logits: Logits, cached: CachedTeacher, labels: TokenIds) -> Compared:
    """A student beside a cached teacher: both over the k cached tokens and "any other token".

    At temperature 1 a divergence of buckets is at most that of the whole distributions (merging
    outcomes hides differences); at τ ≠ 1 the bucket counts as one token, an approximation. Since
    the label is one of the k tokens, its log-probability is that of the whole distribution.

    Args:
        student_logits: [..., V].
        cached: k distinct tokens of each position, the label one of them.
        labels: [...], ids below V.

    Returns:
        Logits [..., k + 1] of both, float32 or wider, and the labels as places among the k; as
        `whole`, the student's own logits, `spread` ones of the teacher, and the labels, for scores
        that look at the student alone or at the likeliest tokens.

    Gradient flows to all of the student's logits, through the bucket too.
    """
    student = bucket_logits(student_logits, cached.ids)
    known = [x.astype(student.dtype) for x in (cached.log_probs, cached.tail[..., None])]
    teacher = jax.lax.stop_gradient(jnp.concatenate(known, axis=-1))
    places = jnp.argmax(cached.ids == labels[..., None], axis=-1).astype(labels.dtype)
    size = student_logits.shape[-1]
    whole = Compared(student_logits, spread(cached, size).astype(student.dtype), labels)
    return Compared(student, teacher, places, whole)


def spread(cached: CachedTeacher, size: int) -> Logits:
    """Log-probabilities [..., V] of a cached teacher whose remaining mass is spread evenly over
    the V − k other tokens. No gradient.
    """
    share = jnp.float32(max(size - cached.ids.shape[-1], 1))
    tail = cached.tail.astype(jnp.float32) - jnp.log(share)
    even = jnp.broadcast_to(tail[..., None], (*cached.tail.shape, size))
    known = cached.log_probs.astype(jnp.float32)
    found = jnp.put_along_axis(even, cached.ids, known, axis=-1, inplace=False)
    return jax.lax.stop_gradient(found)


def bucket_logits(logits: Logits, ids: Int[Array, "*tokens K"]) -> BucketLogits:
    """Logits of the tokens `ids`, then log Σ exp of all other logits, [..., k + 1].

    Their softmax is that of `logits`, with the probabilities of the others added up.

    Args:
        logits: [..., V], float32 or wider, or converted to float32.
        ids: [..., k], distinct, below V.
    """
    if jnp.finfo(logits.dtype).bits < 32:
        logits = logits.astype(jnp.float32)
    return _bucket_logits(logits, ids)


@jax.custom_vjp
def _bucket_logits(logits: Array, ids: Array) -> Array:
    return _forward(logits, ids)[0]


def _forward(logits: Array, ids: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    named = jnp.take_along_axis(logits, ids, axis=-1)
    # The others' sum is taken without the named ones. The sum of all less theirs would cancel.
    others = jnp.put_along_axis(logits, ids, -jnp.inf, axis=-1, inplace=False)
    rest = jax.nn.logsumexp(others, axis=-1, keepdims=True)
    return jnp.concatenate([named, rest], axis=-1), (others, rest, ids)


def _backward(kept: tuple[Array, Array, Array], cotangent: Array) -> tuple[Array, None]:
    """One scatter: automatic differentiation would make two, and arrays [..., V] for each."""
    others, rest, ids = kept
    # Where no other token is possible the sum is −inf and has no gradient.
    share = jnp.exp(others - jnp.where(jnp.isfinite(rest), rest, 0.0))
    gradient = share * cotangent[..., -1:]
    return jnp.put_along_axis(gradient, ids, cotangent[..., :-1], axis=-1, inplace=False), None


_bucket_logits.defvjp(_forward, _backward)
