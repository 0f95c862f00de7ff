"""Slot 3: how soft the two distributions of a token are made before they are compared."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from adakd_jax.axes import Logits, PerToken
from adakd_jax.config.distill import DistillConfig, FixedTemperature, Idts
from adakd_jax.distill.registry import choose
from adakd_jax.distill.signals import Signals

Temperatures = tuple[PerToken, PerToken]  # student, teacher


def _as_assigned(
    config: Any, tau: PerToken, student: Any, teacher: Any, signals: Signals
) -> Temperatures:
    return tau, tau


def _product(config: Any, student_tau: PerToken, teacher_tau: PerToken) -> PerToken:
    return student_tau * teacher_tau


def _never(config: Any) -> bool:
    return False


class TemperatureRule(NamedTuple):
    """A temperature for each token, decided in two halves.

    Attributes:
        assign: (its config, scores [...], selected [...], signals) → τ [...]; sees all tokens of
            the global micro-batch, and no vocabulary. No gradient.
        see: (its config, τ [...], student logits [..., V], teacher logits [..., V], signals) →
            (τ_student, τ_teacher); sees the vocabulary of a slice of tokens. A gradient may flow.
        factor: (its config, τ_student, τ_teacher) → what D is multiplied by where the other methods
            say τ². No gradient.
        is_one: (its config) → whether τ is 1 everywhere, so that nothing needs dividing.
    """

    assign: Callable[[Any, Array, Array, Signals], Array]
    see: Callable[[Any, Array, Any, Any, Signals], Temperatures] = _as_assigned
    factor: Callable[[Any, Array, Array], Array] = _product
    is_one: Callable[[Any], bool] = _never


def lower_median(values: PerToken, selected: Bool[Array, "*tokens"]) -> Float[Array, ""]:
    """Value at ascending index (k−1)//2 of the k selected ones; +inf for k = 0."""
    ascending = jnp.sort(jnp.where(selected, values, jnp.inf).reshape(-1))
    count = selected.sum(dtype=jnp.int32)
    return ascending[jnp.maximum(count - 1, 0) // 2]


def idts_temperature(
    scores: PerToken,
    selected: Bool[Array, "*tokens"],
    base: ArrayLike = 1.0,
    strength: ArrayLike = 0.5,
    inverse: bool = True,
) -> PerToken:
    """Inverse difficulty temperature scaling: a low temperature for hard tokens, a high one for
    easy tokens.

    τ = τ_base·exp(−c·ŝ) with ŝ = tanh(log(s/m)) = (s² − m²)/(s² + m²), m the lower median of the
    selected scores.

    Args:
        scores: s ≥ 0, [...].
        selected: bool [...], tokens that are kept.
        base: τ_base > 0.
        strength: c ≥ 0; τ lies in [τ_base·e^−c, τ_base·e^c].
        inverse: False gives hard tokens the high temperature.

    Returns:
        τ [...]; τ_base where a token is not selected, and everywhere if all selected scores are
        equal. No gradient.

    Scope: the median is over all tokens given, which must be the global micro-batch.

    References:
        AdaKD (arXiv 2510.11615) eqs. 9-10.

    Deviations from the released code: no gradient through τ; τ_base is applied once; no ε, since
    0/0 (student = teacher on the median token and on this one) is ŝ = 0.
    """
    scores = jnp.maximum(jax.lax.stop_gradient(scores), 0.0)
    median = lower_median(scores, selected)
    scores = jnp.where(selected, scores, median)
    # |ŝ| = (1 − x²)/(1 + x²) with x = min/max ≤ 1 neither overflows nor underflows, whatever the
    # scale of the scores.
    larger = jnp.maximum(scores, median)
    quotient = jnp.minimum(scores, median) / jnp.where(larger > 0.0, larger, 1.0)
    square = jnp.square(jnp.where(scores == median, 1.0, quotient))
    hardness = jnp.where(scores < median, -1.0, 1.0) * (1.0 - square) / (1.0 + square)
    exponent = -hardness if inverse else hardness
    return jnp.asarray(base, scores.dtype) * jnp.exp(strength * exponent)


def _fixed(
    config: FixedTemperature,
    scores: PerToken,
    selected: Bool[Array, "*tokens"],
    signals: Signals,
) -> PerToken:
    return jnp.full(scores.shape, config.base, scores.dtype)


def _fixed_is_one(config: FixedTemperature) -> bool:
    return config.base == 1.0


def _idts(
    config: Idts, scores: PerToken, selected: Bool[Array, "*tokens"], signals: Signals
) -> PerToken:
    return idts_temperature(scores, selected, config.base, config.strength, config.inverse)


TEMPERATURES: Mapping[str, TemperatureRule] = {
    "fixed": TemperatureRule(_fixed, is_one=_fixed_is_one),
    "idts": TemperatureRule(_idts),
}


def token_temperature(
    config: DistillConfig,
    scores: PerToken,
    selected: Bool[Array, "*tokens"],
    student_logits: Logits | None,
    teacher_logits: Logits | None,
    signals: Signals,
) -> Temperatures:
    """Temperatures of student and teacher for each token.

    Args:
        config: the loss; its `temperature` chooses the rule.
        scores: difficulty [...].
        selected: bool [...], tokens that are kept.
        student_logits: [..., V], for rules that look at logits; `fixed` and `idts` do not.
        teacher_logits: [..., V], likewise.
        signals: of this optimizer step.

    Returns:
        (τ_student, τ_teacher), [...] each, > 0.

    Scope: see `idts_temperature`.
    """
    rule = choose(TEMPERATURES, "temperature", config.temperature.kind)
    tau = rule.assign(config.temperature, scores, selected, signals)
    return rule.see(config.temperature, tau, student_logits, teacher_logits, signals)
