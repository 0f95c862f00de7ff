"""Slot 3: how soft the two distributions of a token are made before they are compared."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from adakd_jax.axes import Logits, PerToken, TokenMask
from adakd_jax.config.distill import (
    Ctkd,
    DistillConfig,
    Dtkd,
    EntropyTemperature,
    FixedTemperature,
    Idts,
    LogitStandardization,
)
from adakd_jax.distill.focus import entropy_ranks
from adakd_jax.distill.idts import idts_temperature
from adakd_jax.distill.log_probability import IMPOSSIBLE, entropy, log_probabilities
from adakd_jax.distill.registry import choose, options_of
from adakd_jax.distill.signals import Difficulty, Signals

Selected = Bool[Array, "*tokens"]
Temperatures = tuple[PerToken, PerToken]  # student, teacher


def _as_assigned(
    config: Any, tau: PerToken, student: Any, teacher: Any, signals: Signals
) -> Temperatures:
    return tau, tau


def _product(config: Any, student_tau: PerToken, teacher_tau: PerToken) -> PerToken:
    return student_tau * teacher_tau


def _never(config: Any) -> bool:
    return False


def _always(config: Any) -> bool:
    return True


class TemperatureRule(NamedTuple):
    """A temperature for each token, decided in two halves.

    Attributes:
        assign: (its config, difficulty, selected [...], signals) → τ [...]; sees all tokens of the
            global micro-batch, and no vocabulary. No gradient.
        see: (its config, τ [...], student logits [..., V], teacher logits [..., V], signals) →
            (τ_student, τ_teacher); sees the vocabulary of a slice of tokens. A gradient may flow.
        factor: (its config, τ_student, τ_teacher) → what D is multiplied by where the other methods
            say τ². No gradient.
        is_one: (its config) → whether τ is 1 everywhere, so that nothing needs dividing.
        sees_scores: whether `assign` looks at the scores.
        has_gradient: (its config) → whether a gradient flows through τ.
    """

    assign: Callable[[Any, Difficulty, Array, Signals], Array]
    see: Callable[[Any, Array, Any, Any, Signals], Temperatures] = _as_assigned
    factor: Callable[[Any, Array, Array], Array] = _product
    is_one: Callable[[Any], bool] = _never
    sees_scores: bool = True
    has_gradient: Callable[[Any], bool] = _never


def _fixed(
    config: FixedTemperature | LogitStandardization,
    difficulty: Difficulty,
    selected: Selected,
    signals: Signals,
) -> PerToken:
    return jnp.full_like(difficulty.scores, config.base)


def _fixed_is_one(config: FixedTemperature) -> bool:
    return config.base == 1.0


def _idts(config: Idts, difficulty: Difficulty, selected: Selected, signals: Signals) -> PerToken:
    return idts_temperature(difficulty.scores, selected, **options_of(config))


def _by_entropy(
    config: EntropyTemperature, difficulty: Difficulty, selected: Selected, signals: Signals
) -> PerToken:
    """τ = τ_min + (τ_max − τ_min)·u, u the rank of the teacher's entropy; inverse: 1 − u (EGAD, as
    we define it).
    """
    u = difficulty.entropy_rank
    assert u is not None  # `DistillConfig.ranks_entropy`
    return config.min + (config.max - config.min) * (1.0 - u if config.inverse else u)


def _one(config: Any, difficulty: Difficulty, selected: Selected, signals: Signals) -> PerToken:
    return jnp.ones_like(difficulty.scores)


def _learned(
    config: Ctkd, tau: PerToken, student: Logits, teacher: Logits, signals: Signals
) -> Temperatures:
    """One temperature that the student's loss is raised by: its gradient is reversed (CTKD, arXiv
    2211.16231).

    Deviations: τ² has no gradient. The strength λ, from 0 to 1 over the run, is not in the
    gradient, of which Adam would divide it out again: who trains the temperature scales its update.
    """
    if signals.learned is None or "temperature" not in signals.learned:
        raise ValueError("temperature ctkd: needs Signals.learned['temperature'], a number > 0")
    learned = jnp.asarray(signals.learned["temperature"], tau.dtype)
    constant = jax.lax.stop_gradient(learned)
    # Its value is that of `learned` to the last bit, its gradient is −1.
    reversed_gradient = constant - (learned - constant)
    tau = jnp.broadcast_to(reversed_gradient, tau.shape)
    return tau, tau


def _by_height(
    config: Dtkd, tau: PerToken, student: Logits, teacher: Logits, signals: Signals
) -> Temperatures:
    """τ = 2·max z / (max z_s + max z_t) for student and teacher each, z without its mean (DTKD,
    arXiv 2404.12711). No gradient.
    """
    of_student, of_teacher = (
        jnp.maximum(jax.lax.stop_gradient(_height(z)), _LEAST_HEIGHT) for z in (student, teacher)
    )
    both = of_student + of_teacher
    return 2.0 * of_student / both, 2.0 * of_teacher / both


def _standardized(
    config: LogitStandardization, tau: PerToken, student: Logits, teacher: Logits, signals: Signals
) -> Temperatures:
    """Logits z ← (z − mean)/(standard deviation + 1e-7), then τ_base (arXiv 2403.01427): dividing
    by τ = τ_base·(deviation + 1e-7) is the same, as softmax does not see the mean. The gradient
    flows through the deviation.
    """
    return tau * (_deviation(student) + 1e-7), tau * (_deviation(teacher) + 1e-7)


def _base_squared(
    config: LogitStandardization, student_tau: PerToken, teacher_tau: PerToken
) -> PerToken:
    return jnp.full_like(student_tau, config.base**2)


# What the largest logit is above the mean, where all logits are equal: τ must not be 0.
_LEAST_HEIGHT = 1e-6


def _centred(logits: Logits) -> tuple[Logits, Array]:
    """Logits without the mean of those that are possible (others: 0), and how many are."""
    if jnp.finfo(logits.dtype).bits < 32:
        logits = logits.astype(jnp.float32)
    possible = logits >= jnp.max(logits, axis=-1, keepdims=True) + IMPOSSIBLE
    count = jnp.sum(possible, axis=-1, keepdims=True).astype(logits.dtype)
    known = jnp.where(possible, logits, 0.0)
    mean = jnp.sum(known, axis=-1, keepdims=True) / count
    return jnp.where(possible, known - mean, 0.0), count[..., 0]


def _height(logits: Logits) -> PerToken:
    return jnp.max(_centred(logits)[0], axis=-1)


def _deviation(logits: Logits) -> PerToken:
    """Standard deviation over the vocabulary; 0 with zero gradient where all logits are equal."""
    centred, count = _centred(logits)
    variance = jnp.sum(centred * centred, axis=-1) / count
    positive = variance > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)


TEMPERATURES: Mapping[str, TemperatureRule] = {
    "fixed": TemperatureRule(_fixed, is_one=_fixed_is_one, sees_scores=False),
    "idts": TemperatureRule(_idts, has_gradient=lambda config: config.differentiable),
    "entropy": TemperatureRule(_by_entropy, sees_scores=False),
    "ctkd": TemperatureRule(_one, see=_learned, sees_scores=False, has_gradient=_always),
    "dtkd": TemperatureRule(_one, see=_by_height, sees_scores=False),
    "logit_standardization": TemperatureRule(
        _fixed, see=_standardized, factor=_base_squared, sees_scores=False, has_gradient=_always
    ),
}


def token_temperature(
    config: DistillConfig,
    scores: PerToken,
    selected: Selected,
    student_logits: Logits | None,
    teacher_logits: Logits | None,
    signals: Signals,
    *,
    mask: TokenMask | None = None,
) -> Temperatures:
    """Temperatures of student and teacher for each token.

    Args:
        config: the loss; its `temperature` chooses the rule.
        scores: difficulty [...].
        selected: bool [...], tokens that are kept.
        student_logits: [..., V], for the rules that look at logits (`dtkd`,
            `logit_standardization`).
        teacher_logits: [..., V], likewise, and for `entropy`.
        signals: of this optimizer step.
        mask: bool [...], response tokens, among which `entropy` ranks. Default: the selected ones.

    Returns:
        (τ_student, τ_teacher), [...] each, > 0.

    Scope: see `idts_temperature`.
    """
    rule = choose(TEMPERATURES, "temperature", config.temperature.kind)
    rank = None
    if isinstance(config.temperature, EntropyTemperature):
        assert teacher_logits is not None
        rank = entropy_ranks(
            entropy(log_probabilities(teacher_logits)), selected if mask is None else mask
        )
    tau = rule.assign(config.temperature, Difficulty(scores, rank), selected, signals)
    return rule.see(config.temperature, tau, student_logits, teacher_logits, signals)
