"""The loss: score → weight → temperature → divergence, composed over whole logits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adakd_jax.axes import IGNORE, Logits, PerToken, TokenMask
from adakd_jax.config.distill import DistillConfig
from adakd_jax.distill.focus import weight_total
from adakd_jax.distill.log_probability import log_probabilities
from adakd_jax.distill.policy import Assignment, Survey, assign, compare, cross_entropy, survey
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
    student_logits, teacher_logits = (
        jnp.where(mask[..., None], logits, jnp.zeros_like(logits))
        for logits in (student_logits, jax.lax.stop_gradient(teacher_logits))
    )
    seen = survey(config, student_logits, teacher_logits, jnp.where(mask, labels, 0))
    assigned = assign(config, seen.statistics, mask, signals)
    losses, tau = compare(config, student_logits, teacher_logits, assigned.temperature, signals)
    weights = assigned.weights
    kd_sum = jnp.sum(jnp.where(weights > 0, weights * losses, 0.0))
    kd, ce = quotient(kd_sum, denominators.kd), jnp.zeros_like(kd_sum)
    if config.ce_weight > 0:
        likelihood = cross_entropy(log_probabilities(student_logits), jnp.where(mask, labels, 0))
        ce = quotient(masked_sum(likelihood, mask), denominators.ce)
    assigned = assigned._replace(temperature=jnp.where(weights > 0, tau, assigned.temperature))
    report = loss_report(config, seen, assigned, mask, kd_sum, denominators)
    return config.kd_weight * kd + config.ce_weight * ce, jax.lax.stop_gradient(report)


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
    )


def masked_sum(values: PerToken, mask: TokenMask) -> Float[Array, ""]:
    """Σ over the mask; what is outside may be NaN."""
    return jnp.sum(jnp.where(mask, values, 0.0))


def quotient(numerator: Array, denominator: Array) -> Array:
    """A sum by its number of tokens; a sum over no tokens is 0 and stays 0."""
    return numerator / jnp.maximum(denominator, 1.0).astype(numerator.dtype)
