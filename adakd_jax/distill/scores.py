"""Slot 1: how difficult a token is for the student.

A rule has two halves, so that the vocabulary can be visited in slices of tokens: `statistics`
reduces [C, V] log-probabilities (temperature 1) to S numbers a token, and `finish` turns the
numbers of all tokens of the global micro-batch, [n, S], into scores. Scores carry no gradient.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adakd_jax.axes import IGNORE, Logits, PerToken, TokenMask
from adakd_jax.distill.log_probability import log_probabilities
from adakd_jax.distill.registry import choose

LogProbs = Float[Array, "*tokens V"]
Labels = Int[Array, "*tokens"]
Statistics = Float[Array, "*tokens S"]


class ScoreRule(NamedTuple):
    """A difficulty rule.

    Attributes:
        statistics: (student [..., V], teacher [..., V], labels [...], **options) → [..., S]; labels
            of masked tokens are valid ids that mean nothing.
        finish: (statistics [n, S], mask [n], rng) → scores [n]; called once with all tokens.
        sees_vocabulary: whether the statistics need the distributions.
    """

    statistics: Callable[..., Array]
    finish: Callable[[Array, Array, Array | None], Array]
    sees_vocabulary: bool = True


def _no_statistics(student: LogProbs, teacher: LogProbs, labels: Labels) -> Statistics:
    return jnp.zeros((*labels.shape, 0), student.dtype)


def _uniform(statistics: Statistics, mask: TokenMask, rng: Array | None) -> PerToken:
    return jnp.ones(mask.shape, statistics.dtype)


def _squared_hellinger(student: LogProbs, teacher: LogProbs, labels: Labels) -> Statistics:
    # 1 − Σ√(pq) is the same number, but cancels to noise where p ≈ q.
    difference = jnp.sqrt(jnp.exp(student)) - jnp.sqrt(jnp.exp(teacher))
    return 0.5 * jnp.sum(difference * difference, axis=-1, keepdims=True)


def _square_root(statistics: Statistics, mask: TokenMask, rng: Array | None) -> PerToken:
    return jnp.sqrt(statistics[..., 0])


SCORES: Mapping[str, ScoreRule] = {
    "hellinger": ScoreRule(_squared_hellinger, _square_root),
    "uniform": ScoreRule(_no_statistics, _uniform, sees_vocabulary=False),
}


def token_scores(
    rule: str,
    student_logits: Logits,
    teacher_logits: Logits,
    labels: Labels | None = None,
    *,
    mask: TokenMask | None = None,
    rng: Array | None = None,
    **options: Any,
) -> PerToken:
    """Difficulty of each token, at temperature 1.

    `hellinger`: s = sqrt(½ Σ_v (√p_v − √q_v)²) ∈ [0, 1], exactly 0 where the logits are equal.
    `uniform`: s = 1; it ranks nothing, so every token is kept, at τ_base.

    Args:
        rule: a key of `SCORES`.
        student_logits: [..., V], any floating dtype; −inf allowed (see `log_probabilities`).
        teacher_logits: [..., V], aligned with the student's.
        labels: [...], next-token ids; −100 marks tokens that do not count.
        mask: [...], tokens that count; default: those with a label, or all.
        rng: a random key, for rules that draw.
        **options: the rule's own options.

    Returns:
        Scores [...], 0 where masked; float32 or wider. No gradient flows through them.

    Raises:
        ValueError: the rule is unknown.

    Scope: rules that compare tokens do so over all tokens given, which must be the global
    micro-batch.

    References:
        AdaKD (arXiv 2510.11615) eq. 3.
    """
    chosen = choose(SCORES, "score", rule)
    if labels is None:
        labels = jnp.zeros(student_logits.shape[:-1], jnp.int32)
    if mask is None:
        mask = labels != IGNORE
    student, teacher = (
        log_probabilities(jnp.where(mask[..., None], logits, jnp.zeros_like(logits)))
        for logits in jax.lax.stop_gradient((student_logits, teacher_logits))
    )
    statistics = chosen.statistics(student, teacher, jnp.where(mask, labels, 0), **options)
    flat = statistics.reshape(mask.size, statistics.shape[-1])
    scores = chosen.finish(flat, mask.reshape(-1), rng).reshape(mask.shape)
    return jnp.where(mask, scores, 0.0)
