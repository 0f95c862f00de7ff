"""The loss: score → weight → temperature → divergence, composed over whole logits."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adakd_jax.axes import IGNORE, Logits, PerToken, TokenMask
from adakd_jax.config.distill import DistillConfig, FixedTemperature, Latf
from adakd_jax.distill.divergence import DIVERGENCES
from adakd_jax.distill.focus import token_weights, weight_total
from adakd_jax.distill.log_probability import log_probabilities
from adakd_jax.distill.registry import choose, options_of
from adakd_jax.distill.scores import SCORES, scores_from_log_probabilities
from adakd_jax.distill.signals import Denominators, Features, LossReport, Signals
from adakd_jax.distill.temperature import token_temperature

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
        Token counts, float32 []: Σ w of L_KD, response tokens of the cross-entropy, and 0 for the
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
    return Denominators(weight_total(config, mask, signals), tokens, jnp.zeros((), jnp.float32))


def distillation_loss(
    config: DistillConfig,
    student_logits: Logits,
    teacher_logits: Logits,
    labels: Labels,
    signals: Signals,
    *,
    features: Features | None = None,
    denominators: Denominators | None = None,
) -> tuple[Float[Array, ""], LossReport]:
    """Distillation loss of one micro-batch from whole logits.

        L = kd_weight · Σ w·τ²·D(p^τ, q^τ) / Σ w  +  ce_weight · Σ −log q_label / n

    Args:
        config: one choice per slot, static.
        student_logits: [..., V], aligned with `labels`; any floating dtype, computed in float32 or
            wider.
        teacher_logits: [..., V], over the same tokens.
        labels: [...], next-token ids; −100 marks prompt and padding, which enter no sum, rank or
            median.
        signals: of this optimizer step.
        features: hidden states; must be None, as no term of this configuration uses them.
        denominators: of the whole step (see `denominators`): the losses of its micro-batches then
            add up to the loss of the step. Default: those of this micro-batch.

    Returns:
        The loss [] and a `LossReport`. A term without tokens is 0, with zero gradient.

    Raises:
        ValueError: features are given, or a rule is unknown.

    Scope: the global micro-batch: ranks, medians and sums run over all tokens given.
    Gradient flows to the student's logits alone, through D and −log q; not through scores, weights
    or temperatures.

    References:
        AdaKD (arXiv 2510.11615) eqs. 3-10; each rule's docstring names its deviations.
    """
    if features is not None:
        raise ValueError("features: this configuration has no feature term; pass features=None")
    mask = labels != IGNORE
    if denominators is None:
        denominators = _of_micro_batch(config, mask, signals)
    models = _both_models(student_logits, teacher_logits, mask)
    scores = scores_from_log_probabilities(
        choose(SCORES, "score", config.score.kind),
        models.student,
        models.teacher,
        labels,
        mask,
        signals.rng,
        options_of(config.score),
    )
    weights = token_weights(config, scores, mask, signals)
    taus = token_temperature(
        config, scores, weights > 0, models.student_logits, models.teacher_logits, signals
    )
    kd_sum = jnp.sum(jnp.where(weights > 0, weights * _token_losses(config, models, taus), 0.0))
    ce_sum = _cross_entropy_sum(models.student, labels, mask)
    kd, ce = _ratio(kd_sum, denominators.kd), _ratio(ce_sum, denominators.ce)
    loss = config.kd_weight * kd
    if config.ce_weight > 0:
        loss = loss + config.ce_weight * ce
    report = LossReport(
        kd=kd,
        ce=ce,
        scores=scores,
        response=mask,
        selected=weights > 0,
        temperature=taus[0],
        **_report_sums(config, models, mask, weights, kd_sum),
    )
    return loss, jax.lax.stop_gradient(report)


class _Models(NamedTuple):
    """Both models on a micro-batch: logits, and log-probabilities at temperature 1."""

    student_logits: Array
    teacher_logits: Array
    student: Array
    teacher: Array


def _both_models(student_logits: Logits, teacher_logits: Logits, mask: TokenMask) -> _Models:
    """Cut the teacher's gradient, and blank masked rows before the first exp: they may hold NaN."""
    student_logits, teacher_logits = (
        jnp.where(mask[..., None], logits, jnp.zeros_like(logits))
        for logits in (student_logits, jax.lax.stop_gradient(teacher_logits))
    )
    return _Models(
        student_logits,
        teacher_logits,
        log_probabilities(student_logits),
        log_probabilities(teacher_logits),
    )


def _at(models: _Models, taus: tuple[PerToken, PerToken]) -> tuple[Array, Array]:
    """Log-probabilities of student and teacher at the temperatures given."""
    return (
        log_probabilities(models.student_logits, taus[0]),
        log_probabilities(models.teacher_logits, taus[1]),
    )


def _token_losses(
    config: DistillConfig, models: _Models, taus: tuple[PerToken, PerToken]
) -> PerToken:
    """τ²·D(p^τ, q^τ) of every token."""
    temperature = config.temperature
    if isinstance(temperature, FixedTemperature) and temperature.base == 1.0:
        return _divergence(config, models.student, models.teacher)
    losses = _divergence(config, *_at(models, taus))
    return losses * taus[0] * taus[1] if config.scale_by_squared_temperature else losses


def _divergence(config: DistillConfig, student: Array, teacher: Array) -> PerToken:
    rule = choose(DIVERGENCES, "divergence", config.divergence.kind)
    return rule(student, teacher, **options_of(config.divergence))


def _report_sums(
    config: DistillConfig, models: _Models, mask: TokenMask, weights: PerToken, kd_sum: Array
) -> dict[str, Array]:
    """The sums of a `LossReport` that the loss itself does not need."""
    monitored = _monitored(config, models, mask, weights, kd_sum)
    kl_sums = _kl_sums(models, mask)
    return {
        "monitored_sum": monitored[0],
        "monitored_tokens": monitored[1],
        "forward_kl_sum": kl_sums[0],
        "reverse_kl_sum": kl_sums[1],
        "response_tokens": mask.sum(dtype=jnp.float32),
        "selected_tokens": (weights > 0).sum(dtype=jnp.float32),
    }


def _monitored(
    config: DistillConfig, models: _Models, mask: TokenMask, weights: PerToken, kd_sum: Array
) -> tuple[Array, Array]:
    """Numerator and denominator of the loss that LATF watches.

    Lowering the ratio raises the loss of the kept tokens by itself; the loss of all tokens does not
    move with it. That one is the same divergence at τ_base, without the constant factor τ_base².
    """
    if not (isinstance(config.focus, Latf) and config.focus.monitor == "all_tokens"):
        return kd_sum, weights.sum()
    base = config.temperature.base
    student, teacher = models.student, models.teacher
    if base != 1.0:
        tau = jnp.full(mask.shape, base, student.dtype)
        student, teacher = _at(models, (tau, tau))
    values = _divergence(config, *jax.lax.stop_gradient((student, teacher)))
    return _masked_sum(values, mask), mask.sum(dtype=jnp.float32)


def _kl_sums(models: _Models, mask: TokenMask) -> tuple[Array, Array]:
    """Σ KL(p‖q) and Σ KL(q‖p) over response tokens, for the report.

    Both in one pass, by the definition: the care that a gradient or a single token needs is lost in
    a sum over many tokens, and costs a pass over the vocabulary each.
    """
    student, teacher = jax.lax.stop_gradient((models.student, models.teacher))
    gap = teacher - student
    forward = jnp.sum(jnp.exp(teacher) * gap, axis=-1)
    reverse = -jnp.sum(jnp.exp(student) * gap, axis=-1)
    return _masked_sum(forward, mask), _masked_sum(reverse, mask)


def _cross_entropy_sum(student: Array, labels: Labels, mask: TokenMask) -> Array:
    """Σ −log q_label over response tokens."""
    # Not a gather: its gradient is a scatter, which needs arrays of [..., V] of its own.
    ids = jax.lax.broadcasted_iota(labels.dtype, student.shape, student.ndim - 1)
    of_label = jnp.sum(jnp.where(ids == labels[..., None], student, 0.0), axis=-1)
    return _masked_sum(-of_label, mask)


def _masked_sum(values: PerToken, mask: TokenMask) -> Array:
    return jnp.sum(jnp.where(mask, values, 0.0))


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Quotient of a sum by its number of tokens; a sum over no tokens is 0 and stays 0."""
    return numerator / jnp.maximum(denominator, 1.0).astype(numerator.dtype)
