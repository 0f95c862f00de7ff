"""A token policy in three stages: survey the tokens, assign weights and temperatures, compare.

`survey` and `compare` look at tokens with their vocabulary, [..., V], one slice of tokens at a time
if need be. `assign` looks at numbers per token, of the whole global micro-batch at once. So the
loss on whole logits and the loss in chunks are the same three calls.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adakd_jax.axes import Logits, PerToken, TokenMask
from adakd_jax.config.distill import DistillConfig, Latf
from adakd_jax.distill.buckets import Compared
from adakd_jax.distill.divergence import DIVERGENCES
from adakd_jax.distill.features import hard_tokens
from adakd_jax.distill.focus import entropy_ranks, keeps_every_token, token_weights
from adakd_jax.distill.log_probability import entropy, log_probabilities
from adakd_jax.distill.registry import choose, options_of
from adakd_jax.distill.scores import SCORES, ScoreRule
from adakd_jax.distill.signals import Difficulty, Signals
from adakd_jax.distill.temperature import TEMPERATURES

# In place of −∞: a token that cannot be drawn at any τ.
_LEAST_LOGIT = -1e30
Labels = Int[Array, "*tokens"]
LogProbs = Float[Array, "*tokens V"]


class Survey(NamedTuple):
    """What is known of each token before any is chosen. Temperature 1, no gradient.

    Attributes:
        statistics: [..., S], what the score is made of.
        watched: [...], divergence at τ_base, if LATF watches all tokens; else None.
        cross_entropy: [...], −log q of the label. Nats.
        forward_kl: [...], KL(p‖q). Nats.
        reverse_kl: [...], KL(q‖p). Nats.
        teacher_entropy: [...], −Σ p log p, if tokens are ranked by it; else None. Nats.
    """

    statistics: Array
    watched: Array | None
    cross_entropy: Array
    forward_kl: Array
    reverse_kl: Array
    teacher_entropy: Array | None = None


class Assignment(NamedTuple):
    """What the policy decided for each token of a global micro-batch. No gradient, but through
    temperatures that are to have one.

    Attributes:
        scores: [...], difficulty of response tokens, else 0.
        weights: [...], w ≥ 0; 0 is a token that is not kept.
        temperature: [...], what slot 3 decides from the scores; τ_base where not kept.
        hard: bool [...], tokens whose hidden states are compared.
    """

    scores: Array
    weights: Array
    temperature: Array
    hard: Array


def score_rule(config: DistillConfig) -> ScoreRule:
    """The rule of slot 1."""
    return choose(SCORES, "score", config.score.kind)


def watches_all_tokens(config: DistillConfig) -> bool:
    """Whether LATF's loss is that of all response tokens.

    Lowering the ratio raises the loss of the kept tokens by itself; the loss of all tokens does not
    move with it.
    """
    all_tokens = isinstance(config.focus, Latf) and config.focus.monitor == "all_tokens"
    return config.has_kd and all_tokens


def scores_decide(config: DistillConfig) -> bool:
    """Whether anything depends on how difficult one token is beside others. If not, scores are only
    reported.
    """
    rule = choose(TEMPERATURES, "temperature", config.temperature.kind)
    return config.has_kd and (not keeps_every_token(config) or rule.sees_scores)


def needs_survey(config: DistillConfig) -> bool:
    """Whether tokens must be seen once before the loss: to rank them, or to watch all of them."""
    seen = not keeps_every_token(config) or score_rule(config).sees_vocabulary
    return config.ranks_entropy or (scores_decide(config) and seen)


def temperature_has_gradient(config: DistillConfig) -> bool:
    """Whether the gradient of the loss flows through the temperatures into the scores."""
    rule = choose(TEMPERATURES, "temperature", config.temperature.kind)
    moves = rule.sees_scores and rule.has_gradient(config.temperature)
    return moves and config.has_kd and score_rule(config).sees_vocabulary


def _constant(config: DistillConfig, values: Array) -> Array:
    """The values without gradient, unless it flows through the temperatures."""
    return values if temperature_has_gradient(config) else jax.lax.stop_gradient(values)


def survey(
    config: DistillConfig,
    student_logits: Logits,
    teacher_logits: Logits | None,
    labels: Labels,
    whole: Compared | None = None,
) -> Survey:
    """Look at tokens. `labels` are valid ids, at masked tokens too; logits there must be finite.

    Without a teacher (fine-tuning) there is only the cross-entropy to see. Where the logits are
    those of buckets, scores that need the whole vocabulary look at `whole`.
    """
    student = log_probabilities(jax.lax.stop_gradient(student_logits))
    of_label = jnp.take_along_axis(student, labels[..., None], axis=-1)[..., 0]
    if teacher_logits is None:
        zeros = jnp.zeros_like(of_label)
        return Survey(jnp.zeros((*labels.shape, 0), student.dtype), None, -of_label, zeros, zeros)
    teacher = log_probabilities(jax.lax.stop_gradient(teacher_logits))
    whole = jax.lax.stop_gradient(whole)
    statistics = _statistics(config, (student, teacher, labels), whole)
    watched = None
    if watches_all_tokens(config):
        watched = _watched(config, (student_logits, teacher_logits), (student, teacher))
    forward_kl, reverse_kl = _both_kl(student, teacher)
    ranked = entropy(teacher) if config.ranks_entropy else None
    return Survey(statistics, watched, -of_label, forward_kl, reverse_kl, ranked)


def statistics_of(
    config: DistillConfig,
    student_logits: Logits,
    teacher_logits: Logits,
    labels: Labels,
    whole: Compared | None = None,
) -> Array:
    """What the score of each token is made of, [..., S], as `survey` has it. The gradient to the
    student's logits is wanted here.
    """
    seen = log_probabilities(student_logits), log_probabilities(teacher_logits), labels
    return _statistics(config, seen, whole)


def _statistics(
    config: DistillConfig, seen: tuple[LogProbs, LogProbs, Labels], whole: Compared | None
) -> Array:
    rule = score_rule(config)
    if whole is not None and rule.sees_whole:
        seen = log_probabilities(whole.student), log_probabilities(whole.teacher), whole.labels
    return rule.statistics(*seen, **options_of(config.score))


def _watched(
    config: DistillConfig, logits: tuple[Logits, Logits], at_one: tuple[LogProbs, LogProbs]
) -> PerToken:
    """Divergence at τ_base, no gradient."""
    base = getattr(config.temperature, "base", 1.0)
    if base == 1.0:
        return _divergence(config, *at_one)
    tau = jnp.full(logits[0].shape[:-1], base, at_one[0].dtype)
    return _divergence(config, *(log_probabilities(jax.lax.stop_gradient(z), tau) for z in logits))


def assign(
    config: DistillConfig,
    statistics: Array | None,
    teacher_entropy: Array | None,
    mask: TokenMask,
    signals: Signals,
) -> Assignment:
    """Decide from the statistics [..., S] and the entropies [...] of a global micro-batch what
    every token is worth. Statistics may be None where scores decide nothing; these are then 0.
    """
    u = hard = None
    if teacher_entropy is not None:
        u = entropy_ranks(teacher_entropy, mask)
        hard = hard_tokens(config.features, u, mask) if config.has_features else None
    hard = jnp.zeros_like(mask) if hard is None else hard
    if statistics is None:
        scores = jnp.zeros(mask.shape, jnp.float32)
    else:
        scores = scores_of(config, statistics, mask, signals)
    if not config.has_kd:
        return Assignment(scores, mask.astype(scores.dtype), jnp.ones_like(scores), hard)
    difficulty = Difficulty(scores, u)
    weights = token_weights(config, difficulty, mask, signals)
    rule = choose(TEMPERATURES, "temperature", config.temperature.kind)
    tau = rule.assign(config.temperature, difficulty, weights > 0, signals)
    return Assignment(scores, weights, _constant(config, tau), hard)


def scores_of(
    config: DistillConfig, statistics: Array, mask: TokenMask, signals: Signals
) -> PerToken:
    """Difficulty of each token of a global micro-batch from its statistics [..., S]; 0 where masked
    and without a distillation loss. No gradient, unless it flows through the temperatures.
    """
    if not config.has_kd:
        return jnp.zeros(mask.shape, statistics.dtype)
    flat = statistics.reshape(mask.size, statistics.shape[-1])
    scores = score_rule(config).finish(flat, mask.reshape(-1), signals.rng).reshape(mask.shape)
    return _constant(config, jnp.where(mask, scores, 0.0))


def compare(
    config: DistillConfig,
    student_logits: Logits,
    teacher_logits: Logits,
    temperature: PerToken,
    signals: Signals,
) -> tuple[PerToken, PerToken]:
    """τ²·D(p^τ, q^τ) of each token, and the student's temperature. The gradient is wanted here.

    Args:
        config: the loss.
        student_logits: [..., V].
        teacher_logits: [..., V], no gradient.
        temperature: [...], as assigned.
        signals: of this optimizer step.
    """
    rule = choose(TEMPERATURES, "temperature", config.temperature.kind)
    if rule.is_one(config.temperature):
        student, teacher = log_probabilities(student_logits), log_probabilities(teacher_logits)
        return _divergence(config, student, teacher), temperature
    if rule.has_gradient(config.temperature):  # dz/τ is −z/τ², and −∞ would be NaN
        student_logits = jnp.maximum(student_logits, _LEAST_LOGIT)
        teacher_logits = jnp.maximum(teacher_logits, _LEAST_LOGIT)
    taus = rule.see(config.temperature, temperature, student_logits, teacher_logits, signals)
    losses = _divergence(
        config,
        log_probabilities(student_logits, taus[0]),
        log_probabilities(teacher_logits, taus[1]),
    )
    if config.scale_by_squared_temperature:
        losses = losses * _constant(config, rule.factor(config.temperature, *taus))
    return losses, taus[0]


def cross_entropy(student: LogProbs, labels: Labels) -> PerToken:
    """−log q of each label, from log-probabilities."""
    # Not a gather: its gradient is a scatter, which needs arrays of [..., V] of its own.
    ids = jax.lax.broadcasted_iota(labels.dtype, student.shape, student.ndim - 1)
    return -jnp.sum(jnp.where(ids == labels[..., None], student, 0.0), axis=-1)


def _divergence(config: DistillConfig, student: LogProbs, teacher: LogProbs) -> PerToken:
    rule: Any = choose(DIVERGENCES, "divergence", config.divergence.kind)
    return rule(student, teacher, **options_of(config.divergence))


def _both_kl(student: LogProbs, teacher: LogProbs) -> tuple[PerToken, PerToken]:
    """KL(p‖q) and KL(q‖p), for the report.

    By the definition: the care that a gradient or a single token needs is lost in a sum over many
    tokens, and costs a pass over the vocabulary each.
    """
    gap = teacher - student
    return jnp.sum(jnp.exp(teacher) * gap, axis=-1), -jnp.sum(jnp.exp(student) * gap, axis=-1)
