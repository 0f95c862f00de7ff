"""The loss: score → weight → temperature → divergence, composed over whole logits."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from adakd_jax.axes import IGNORE, CachedTeacher, Logits, PerToken, TokenMask
from adakd_jax.config.distill import DistillConfig
from adakd_jax.distill.buckets import Compared, compared_with
from adakd_jax.distill.features import feature_loss, hard_count
from adakd_jax.distill.focus import weight_total
from adakd_jax.distill.log_probability import log_probabilities
from adakd_jax.distill.policy import (
    Assignment,
    Survey,
    assign,
    compare,
    cross_entropy,
    statistics_of,
    survey,
    temperature_has_gradient,
)
from adakd_jax.distill.schedule import moving
from adakd_jax.distill.signals import Denominators, Features, LossReport, Signals

Labels = Int[Array, "*tokens"]


def denominators(config: DistillConfig, labels: Labels, signals: Signals) -> Denominators:
    """By what each term of one optimizer step is divided, known before any forward pass.

    Args:
        config: the loss.
        labels: [A, B, T] for a step of A micro-batches: the tokens to keep are counted in each
            micro-batch, then summed. With fewer than three dimensions ([B, T] or [T]) all tokens
            are one micro-batch.
        signals: of this optimizer step; `keep_ratio` decides how many tokens LATF keeps.

    Returns:
        Float32 []: Σ w of L_KD, response tokens of the cross-entropy, and hard tokens of the
        feature term.

    Scope: all devices; pass the global labels.
    """
    mask = labels != IGNORE
    if mask.ndim < 3:
        return _of_micro_batch(config, mask, signals)
    each = jax.vmap(lambda rows: _of_micro_batch(config, rows, signals))(mask)
    return jax.tree.map(jnp.sum, each)


def _of_micro_batch(config: DistillConfig, mask: TokenMask, signals: Signals) -> Denominators:
    tokens = mask.sum(dtype=jnp.float32)
    hard = hard_count(config.features, mask) if config.has_features else jnp.zeros_like(tokens)
    return Denominators(weight_total(config, mask, signals), tokens, hard)


class Weights(NamedTuple):
    """What the terms of the loss are multiplied by in one optimizer step."""

    kd: ArrayLike
    ce: ArrayLike
    feature: ArrayLike


def term_weights(config: DistillConfig, signals: Signals) -> Weights:
    """The weights of this optimizer step: each from its start to its end over the run, if it has an
    end.
    """

    def now(start: float, end: float | None) -> ArrayLike:
        if end is None:
            return start
        return moving(start, end, config.weight_schedule, signals.progress)

    return Weights(
        now(config.kd_weight, config.kd_weight_end),
        now(config.ce_weight, config.ce_weight_end),
        now(config.feature_weight, config.feature_weight_end),
    )


def distillation_loss(
    config: DistillConfig,
    student_logits: Logits,
    teacher_logits: Logits | None,
    labels: Labels,
    signals: Signals,
    *,
    cached: CachedTeacher | None = None,
    features: Features | None = None,
    denominators: Denominators | None = None,
) -> tuple[Float[Array, ""], LossReport]:
    """Distillation loss of one micro-batch from whole logits.

        L = kd_weight · Σ w·τ²·D(p^τ, q^τ) / Σ w  +  ce_weight · Σ −log q_label / n
            + feature_weight · Σ_hard ‖LN(h·W) − LN(h_teacher)‖² / D / hard tokens

    Args:
        config: one choice per slot, static.
        student_logits: [..., V], aligned with `labels`; any floating dtype, computed in float32 or
            wider.
        teacher_logits: [..., V], over the same tokens. None if it has no say
            (`config.has_teacher`): supervised fine-tuning.
        labels: [...], next-token ids; −100 marks prompt and padding, which enter no sum, rank or
            median.
        signals: of this optimizer step.
        cached: in place of the teacher's logits, what a cache holds [..., k]; the student is then
            compared with it as `config.cached_tail` says.
        features: hidden states [..., M, D], if `config.has_features`.
        denominators: of the whole step (see `denominators`): the losses of its micro-batches then
            add up to the loss of the step. Default: those of this micro-batch.

    Returns:
        The loss [] and a `LossReport`. A term without tokens is 0, with zero gradient.

    Raises:
        ValueError: a rule is unknown, or lacks what it needs (teacher, features, random key,
            learned parameter).

    Scope: the global micro-batch: ranks, medians and sums run over all tokens given.
    Gradient flows to the student's logits, through D and −log q, to the student's features, and to
    `signals.learned`; not through scores, weights or (CTKD's own, logit standardisation and
    `Idts.differentiable` aside) temperatures.

    References:
        AdaKD (arXiv 2510.11615) eqs. 3-10; each rule's docstring names its deviations.
    """
    check_parts(config, teacher_logits is not None or cached is not None, features)
    if not config.has_teacher:
        teacher_logits = cached = None
    mask = labels != IGNORE
    known = jnp.where(mask, labels, 0)
    if denominators is None:
        denominators = _of_micro_batch(config, mask, signals)
    student_logits = _blanked(student_logits, mask)
    if teacher_logits is not None:
        teacher_logits = _blanked(jax.lax.stop_gradient(teacher_logits), mask)
    compared = Compared(student_logits, teacher_logits, known)
    if cached is not None:
        compared = compared_with(config.cached_tail, student_logits, cached, known)
    seen = survey(config, *compared)
    statistics = seen.statistics
    if temperature_has_gradient(config):
        statistics = statistics_of(config, *compared)
    assigned = assign(config, statistics, seen.teacher_entropy, mask, signals)
    terms = loss_terms(
        config,
        *compared[:3],
        mask,
        assigned.weights,
        assigned.temperature,
        signals,
    )
    assigned = assigned._replace(temperature=terms.temperature)
    report = loss_report(config, seen, assigned, mask, terms.kd, denominators)
    loss = weighted_loss(config, terms, denominators, signals)
    if not config.has_features:
        return loss, jax.lax.stop_gradient(report)
    term = feature_loss(config, features, report.hard, signals, denominators.feature)
    return add_features(config, loss, report, term, signals)


def _blanked(logits: Logits, mask: TokenMask) -> Logits:
    """Zeros outside the mask, where anything may stand."""
    return jnp.where(mask[..., None], logits, jnp.zeros_like(logits))


class Terms(NamedTuple):
    """Numerators of the terms that are made of logits, and the tokens' temperatures."""

    kd: Array
    ce: Array
    temperature: Array


def loss_terms(
    config: DistillConfig,
    student_logits: Logits,
    teacher_logits: Logits | None,
    labels: Labels,
    exists: TokenMask,
    weights: PerToken,
    tau: PerToken,
    signals: Signals,
) -> Terms:
    """Sums over some tokens: w·τ²·D, and −log q of the label where `exists`."""
    kd = ce = jnp.zeros((), tau.dtype)
    if config.has_kd and teacher_logits is not None:
        losses, seen_tau = compare(config, student_logits, teacher_logits, tau, signals)
        kd = jnp.sum(jnp.where(weights > 0, weights * losses, 0.0))
        tau = jnp.where(weights > 0, seen_tau, tau)
    if config.has_ce:
        ce = masked_sum(cross_entropy(log_probabilities(student_logits), labels), exists)
    return Terms(kd, ce, jax.lax.stop_gradient(tau))


def weighted_loss(
    config: DistillConfig, terms: Terms, totals: Denominators, signals: Signals
) -> Float[Array, ""]:
    """kd_weight · L_KD + ce_weight · CE, of this step's weights."""
    weights = term_weights(config, signals)
    kd, ce = quotient(terms.kd, totals.kd), quotient(terms.ce, totals.ce)
    return jnp.asarray(weights.kd * kd + weights.ce * ce)


def add_features(
    config: DistillConfig,
    loss: Float[Array, ""],
    report: LossReport,
    term: Float[Array, ""],
    signals: Signals,
) -> tuple[Float[Array, ""], LossReport]:
    """Add the feature term by its weight. The report gets no gradient."""
    term = term.astype(loss.dtype)
    loss = loss + term_weights(config, signals).feature * term
    return loss, jax.lax.stop_gradient(report._replace(feature=term))


def check_parts(config: DistillConfig, teacher: bool, features: Features | None) -> None:
    """What the configuration needs is there, and nothing that it would not look at.

    Raises:
        ValueError: names what is missing or unused.
    """
    if config.has_teacher and not teacher:
        raise ValueError("teacher: kd_weight or feature_weight > 0 needs the teacher; it is None")
    if features is not None and not config.has_features:
        raise ValueError("features: this configuration has no feature term; pass features=None")


def loss_report(
    config: DistillConfig,
    seen: Survey,
    assigned: Assignment,
    mask: TokenMask,
    kd_sum: Array,
    totals: Denominators,
) -> LossReport:
    """Put together what a loss saw; the sums are over the tokens given."""
    weights, tokens = assigned.weights, mask.sum(dtype=jnp.float32)
    monitored = kd_sum, weights.sum()
    if seen.watched is not None:
        monitored = masked_sum(seen.watched, mask), tokens
    return LossReport(
        kd=quotient(kd_sum, totals.kd),
        ce=quotient(masked_sum(seen.cross_entropy, mask), totals.ce),
        feature=jnp.zeros_like(kd_sum),
        monitored_sum=monitored[0],
        monitored_tokens=monitored[1],
        forward_kl_sum=masked_sum(seen.forward_kl, mask),
        reverse_kl_sum=masked_sum(seen.reverse_kl, mask),
        response_tokens=tokens,
        selected_tokens=(weights > 0).sum(dtype=jnp.float32),
        scores=assigned.scores,
        response=mask,
        selected=weights > 0,
        temperature=assigned.temperature,
        hard=assigned.hard,
    )


def masked_sum(values: PerToken, mask: TokenMask) -> Float[Array, ""]:
    """Σ over the mask; what is outside may be NaN."""
    return jnp.sum(jnp.where(mask, values, 0.0))


def quotient(numerator: Array, denominator: Array) -> Array:
    """A sum by its number of tokens; a sum over no tokens is 0 and stays 0."""
    return numerator / jnp.maximum(denominator, 1.0).astype(numerator.dtype)
