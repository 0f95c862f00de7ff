"""Slot 1: how difficult a token is for the student.

A rule has two halves, so that the vocabulary can be visited in slices of tokens: `statistics`
reduces [C, V] log-probabilities (temperature 1) to S numbers a token, and `finish` turns the
numbers of all tokens of the global micro-batch, [n, S], into scores. Scores carry no gradient,
unless the temperatures that are made of them shall (`Idts.differentiable`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adakd_jax.axes import IGNORE, Logits, PerToken, TokenMask
from adakd_jax.distill.divergence import forward_kl, jsd, reverse_kl
from adakd_jax.distill.log_probability import entropy, log_probabilities
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
        sees_whole: whether they need the student's whole distribution, and of the teacher not more
            than its likeliest tokens: with a cached teacher these are not buckets.
    """

    statistics: Callable[..., Array]
    finish: Callable[[Array, Array, Array | None], Array]
    sees_vocabulary: bool = True
    sees_whole: bool = False


def _no_statistics(student: LogProbs, teacher: LogProbs, labels: Labels) -> Statistics:
    return jnp.zeros((*labels.shape, 0), student.dtype)


def _uniform(statistics: Statistics, mask: TokenMask, rng: Array | None) -> PerToken:
    return jnp.ones(mask.shape, statistics.dtype)


def _random(statistics: Statistics, mask: TokenMask, rng: Array | None) -> PerToken:
    if rng is None:
        raise ValueError("score random: needs a random key (rng=, or Signals.rng)")
    return jax.random.uniform(rng, mask.shape, statistics.dtype)


def _squared_hellinger(student: LogProbs, teacher: LogProbs) -> PerToken:
    # 1 − Σ√(pq) is the same number, but cancels to noise where p ≈ q.
    difference = jnp.sqrt(jnp.exp(student)) - jnp.sqrt(jnp.exp(teacher))
    return 0.5 * jnp.sum(difference * difference, axis=-1)


def _bhattacharyya(student: LogProbs, teacher: LogProbs) -> PerToken:
    near = _squared_hellinger(student, teacher)  # 1 − Σ√(pq)
    far = -jax.nn.logsumexp(0.5 * (student + teacher), axis=-1)
    return jnp.where(near < 0.5, -jnp.log1p(-jnp.minimum(near, 0.5)), far)


def _half_jsd(student: LogProbs, teacher: LogProbs) -> PerToken:
    return jsd(student, teacher, 0.5)


def _of_label(log_probs: LogProbs, labels: Labels) -> PerToken:
    return jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]


def _student_confidence(student: LogProbs) -> PerToken:
    return -jnp.expm1(jnp.max(student, axis=-1))


def _sensitivity(student: LogProbs, teacher: LogProbs) -> PerToken:
    divergence = jnp.maximum(reverse_kl(student, teacher), 1e-8)
    return divergence / jnp.maximum(entropy(student), 1e-8)


def _label_gap(student: LogProbs, teacher: LogProbs, labels: Labels) -> PerToken:
    return jnp.expm1(_of_label(teacher, labels)) * _of_label(student, labels)


def _logtoku(student: LogProbs, teacher: LogProbs, labels: Labels, k: int = 10) -> Statistics:
    """[AU, EU] of evidence a = logit − smallest of the k + 1e-8."""
    largest = jax.lax.top_k(student, min(k, student.shape[-1]))[0]
    evidence = largest - largest[..., -1:] + 1e-8
    total = jnp.sum(evidence, axis=-1, keepdims=True)
    spread = jax.scipy.special.digamma(evidence + 1.0) - jax.scipy.special.digamma(total + 1.0)
    aleatoric = -jnp.sum(evidence / total * spread, axis=-1)
    count = largest.shape[-1]
    return jnp.stack([aleatoric, count / (total[..., 0] + count)], axis=-1)


def _product_of_scaled(statistics: Statistics, mask: TokenMask, rng: Array | None) -> PerToken:
    """Each statistic min-maxed over the tokens that count (constant: 0), then multiplied."""
    low = jnp.min(statistics, axis=0, keepdims=True, where=mask[:, None], initial=jnp.inf)
    high = jnp.max(statistics, axis=0, keepdims=True, where=mask[:, None], initial=-jnp.inf)
    width = jnp.where(high > low, high - low, 1.0)
    scaled = jnp.where((high > low) & mask[:, None], (statistics - low) / width, 0.0)
    return jnp.prod(scaled, axis=-1)


def _nmtkd(student: LogProbs, teacher: LogProbs, labels: Labels, k: int = 10) -> Statistics:
    """Σ_{u∈T} relu(q_u − q_top) + Σ_{u∈T, v∈S} [p_u > p_v]·relu(q_v − q_u)."""
    k = min(k, student.shape[-1])
    of_teacher, of_student = jax.lax.top_k(teacher, k)[1], jax.lax.top_k(student, k)[1]
    q, p = jnp.exp(student), jnp.exp(teacher)
    q_u, p_u = (jnp.take_along_axis(x, of_teacher, axis=-1) for x in (q, p))
    q_v, p_v = (jnp.take_along_axis(x, of_student, axis=-1) for x in (q, p))
    above_top = jnp.sum(jax.nn.relu(q_u - q_u[..., :1]), axis=-1)
    misordered = p_u[..., :, None] > p_v[..., None, :]
    excess = jax.nn.relu(q_v[..., None, :] - q_u[..., :, None])
    return (above_top + jnp.sum(jnp.where(misordered, excess, 0.0), axis=(-2, -1)))[..., None]


def _as_it_is(statistics: Statistics, mask: TokenMask, rng: Array | None) -> PerToken:
    return statistics[..., 0]


def _square_root(statistics: Statistics, mask: TokenMask, rng: Array | None) -> PerToken:
    return _root(statistics[..., 0])


@jax.custom_jvp
def _root(values: PerToken) -> PerToken:
    return jnp.sqrt(values)


@_root.defjvp
def _root_jvp(primals: tuple[PerToken], tangents: tuple[PerToken]) -> tuple[PerToken, PerToken]:
    """0 at 0, where the slope is infinite: what is made of the score there does not move."""
    root, (change,) = _root(*primals), tangents
    return root, jnp.where(root > 0.0, 0.5 / jnp.where(root > 0.0, root, 1.0), 0.0) * change


def _number(
    compute: Callable[[Array, Array, Array], Array], finish: Any = _as_it_is, whole: bool = False
) -> ScoreRule:
    """A rule of one number a token."""

    def statistics(student: LogProbs, teacher: LogProbs, labels: Labels) -> Statistics:
        return compute(student, teacher, labels)[..., None]

    return ScoreRule(statistics, finish, sees_whole=whole)


SCORES: Mapping[str, ScoreRule] = {
    "hellinger": _number(lambda q, p, y: _squared_hellinger(q, p), _square_root),
    "forward_kl": _number(lambda q, p, y: forward_kl(q, p)),
    "reverse_kl": _number(lambda q, p, y: reverse_kl(q, p)),
    "jsd": _number(lambda q, p, y: _half_jsd(q, p)),
    "bhattacharyya": _number(lambda q, p, y: _bhattacharyya(q, p)),
    "student_confidence": _number(lambda q, p, y: _student_confidence(q), whole=True),
    "student_entropy": _number(lambda q, p, y: entropy(q), whole=True),
    "teacher_entropy": _number(lambda q, p, y: entropy(p)),
    "cross_entropy": _number(lambda q, p, y: -_of_label(q, y)),
    "ce_entropy": _number(lambda q, p, y: -_of_label(q, y) * entropy(q), whole=True),
    "sensitivity": _number(lambda q, p, y: _sensitivity(q, p), whole=True),
    "label_gap": _number(_label_gap),
    "logtoku": ScoreRule(_logtoku, _product_of_scaled, sees_whole=True),
    "nmtkd": ScoreRule(_nmtkd, _as_it_is, sees_whole=True),
    "random": ScoreRule(_no_statistics, _random, sees_vocabulary=False),
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
    """Difficulty of each token, at temperature 1. p is the teacher, q the student, y the label.

        hellinger           sqrt(½ Σ (√p − √q)²) ∈ [0, 1], exactly 0 where the logits are equal
        forward_kl          Σ p log(p/q)               reverse_kl        Σ q log(q/p)
        jsd                 ½ KL(p‖m) + ½ KL(q‖m)      bhattacharyya     −log Σ √(pq)
        student_confidence  1 − max q                  cross_entropy     −log q_y
        student_entropy     −Σ q log q                 teacher_entropy   −Σ p log p
        ce_entropy          −log q_y · student_entropy
        sensitivity         reverse_kl / student_entropy, both at least 1e-8
        label_gap           (1 − p_y)·(−log q_y)
        logtoku             AU·EU, each min-maxed over the tokens; over the student's k largest
                            logits a = logit − min + 1e-8, a₀ = Σa: EU = k/(a₀+k),
                            AU = −Σ a/a₀·(ψ(a+1) − ψ(a₀+1))
        nmtkd               Σ_{u∈T} relu(q_u − q_top) + Σ_{u∈T,v∈S} [p_u > p_v]·relu(q_v − q_u);
                            T, S the teacher's and student's k likeliest, top the teacher's first
        random              uniform in [0, 1), drawn from `rng`
        uniform             1; it ranks nothing, so every token is kept, at τ_base

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
        AdaKD (arXiv 2510.11615) eq. 3 and its ablation of scores; LogTokU (arXiv 2502.00290);
        NMT-KD (arXiv 2305.08096).

    Deviations from the released code: no 1e-8 inside logarithms and mixtures.
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
