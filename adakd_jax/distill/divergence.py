"""Slot 4: how far the student's next-token distribution q is from the teacher's p.

A rule takes log-probabilities of student and teacher, [..., V] each, at the token's temperature,
and its options by keyword; it returns nats per token, [...]. It sees one slice of tokens at a time,
so it may not look across tokens.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from adakd_jax.axes import Logits, PerToken
from adakd_jax.distill.alpha_beta import alpha_beta
from adakd_jax.distill.log_probability import log_mixture, log_probabilities
from adakd_jax.distill.registry import choose

LogProbs = Float[Array, "*tokens V"]
DivergenceRule = Callable[..., Array]


@jax.custom_jvp
def _kl(a: LogProbs, b: LogProbs) -> PerToken:
    """KL of exp(a) from exp(b): Σ e^a (a − b) + (e^b − e^a).

    The second term is zero for probabilities. With it every summand is ≥ 0 and of second order in
    a − b, so that the rounding of the two normalisations does not drown the value of easy tokens.
    The derivative is written out because automatic differentiation sums terms that cancel only up
    to rounding: here it is exactly 0 where a = b.
    """
    mass_a, mass_b, gap = jnp.exp(a), jnp.exp(b), a - b
    mass_change = jnp.where(gap > 0.0, mass_a, -mass_b) * jnp.expm1(-jnp.abs(gap))  # e^b − e^a
    return jnp.sum(mass_a * gap + mass_change, axis=-1)


@_kl.defjvp
def _kl_jvp(
    primals: tuple[LogProbs, LogProbs], tangents: tuple[LogProbs, LogProbs]
) -> tuple[PerToken, PerToken]:
    (a, b), (a_dot, b_dot) = primals, tangents
    mass_a = jnp.exp(a)
    change = mass_a * (a - b) * a_dot + (jnp.exp(b) - mass_a) * b_dot
    return _kl(a, b), jnp.sum(change, axis=-1)


def forward_kl(student: LogProbs, teacher: LogProbs) -> PerToken:
    """KL(p‖q) = Σ p log(p/q)."""
    return _kl(teacher, student)


def reverse_kl(student: LogProbs, teacher: LogProbs) -> PerToken:
    """KL(q‖p) = Σ q log(q/p)."""
    return _kl(student, teacher)


def symmetric_kl(student: LogProbs, teacher: LogProbs) -> PerToken:
    """KL(p‖q) + KL(q‖p) = Σ (p − q)·log(p/q)."""
    return _kl(teacher, student) + _kl(student, teacher)


def jsd(student: LogProbs, teacher: LogProbs, lam: float = 0.9) -> PerToken:
    """(1−λ)·KL(p‖m) + λ·KL(q‖m) with m = (1−λ)p + λq; it vanishes towards λ = 0 and 1, as
    λ·KL(q‖p) and (1−λ)·KL(p‖q) do.

    Deviations from the released code: m is not clamped at 1e-8.
    """
    middle = log_mixture(teacher, student, lam)
    return (1.0 - lam) * _kl(teacher, middle) + lam * _kl(student, middle)


def tvd(student: LogProbs, teacher: LogProbs) -> PerToken:
    """Total variation ½ Σ|p − q| ∈ [0, 1]; where p_v = q_v, its subgradient 0 is taken."""
    return _tvd(teacher, student)


@jax.custom_jvp
def _tvd(a: LogProbs, b: LogProbs) -> PerToken:
    return 0.5 * jnp.sum(jnp.abs(jnp.exp(a) - jnp.exp(b)), axis=-1)


@_tvd.defjvp
def _tvd_jvp(
    primals: tuple[LogProbs, LogProbs], tangents: tuple[LogProbs, LogProbs]
) -> tuple[PerToken, PerToken]:
    """The sign is taken of logarithms, which are equal to the last bit where the logits are."""
    (a, b), (a_dot, b_dot) = primals, tangents
    change = jnp.sign(a - b) * (jnp.exp(a) * a_dot - jnp.exp(b) * b_dot)
    return _tvd(a, b), 0.5 * jnp.sum(change, axis=-1)


def skew_forward_kl(student: LogProbs, teacher: LogProbs, alpha: float = 0.1) -> PerToken:
    """KL(p ‖ αp + (1−α)q) ≤ log(1/α); α = 0 is forward KL.

    References:
        DistiLLM (arXiv 2402.03898).

    Deviations from the released code: it drops the constant Σ p log p, so that its value is not 0
    at q = p; the gradient is the same.
    """
    return _kl(teacher, log_mixture(student, teacher, alpha))


def skew_reverse_kl(student: LogProbs, teacher: LogProbs, alpha: float = 0.1) -> PerToken:
    """KL(q ‖ (1−α)p + αq) ≤ log(1/α); α = 0 is reverse KL.

    References:
        DistiLLM (arXiv 2402.03898).
    """
    return _kl(student, log_mixture(teacher, student, alpha))


def hellinger(student: LogProbs, teacher: LogProbs) -> PerToken:
    """Squared Hellinger distance ½ Σ(√p − √q)² ∈ [0, 1], 1 at disjoint support."""
    return 0.5 * jnp.sum((jnp.exp(0.5 * teacher) - jnp.exp(0.5 * student)) ** 2, axis=-1)


def adaptive_kl(student: LogProbs, teacher: LogProbs, mu: float = 0.5) -> PerToken:
    """(g_h·KL(p‖q) + g_t·KL(q‖p)) / (g_h + g_t), 0/0 = 0.

    g_h and g_t are Σ|p − q| over the teacher's head and tail, without gradient; the head is the
    teacher's tokens in descending order while their cumulative mass is at most μ, the first always
    in, ties to the lower id. Sorts the vocabulary of every token.

    References:
        AKL (arXiv 2404.02657).
    """
    gap = jax.lax.stop_gradient(jnp.abs(jnp.exp(teacher) - jnp.exp(student)))
    head = jnp.sum(jnp.where(_head_of(jax.lax.stop_gradient(teacher), mu), gap, 0.0), axis=-1)
    whole = jnp.sum(gap, axis=-1)
    share = head / jnp.where(whole > 0.0, whole, 1.0)
    return share * forward_kl(student, teacher) + (1.0 - share) * reverse_kl(student, teacher)


def _head_of(teacher: LogProbs, mu: float) -> Bool[Array, "*tokens V"]:
    mass = jnp.exp(teacher)
    descending = jnp.flip(jnp.sort(mass, axis=-1), axis=-1)
    # The tolerance is what rounding adds to a sum of masses: μ = 1 is the whole vocabulary.
    within = jnp.cumsum(descending, axis=-1) <= mu + 1e-6
    count = jnp.maximum(jnp.sum(within, axis=-1, keepdims=True, dtype=jnp.int32), 1)
    least = jnp.take_along_axis(descending, count - 1, axis=-1)
    above, tied = mass > least, mass == least
    room = count - jnp.sum(above, axis=-1, keepdims=True, dtype=jnp.int32)
    return above | (tied & (jnp.cumsum(tied, axis=-1, dtype=jnp.int32) <= room))


@jax.custom_jvp
def _todi(a: LogProbs, b: LogProbs) -> PerToken:
    return jnp.sum((jnp.exp(a) - jnp.exp(b)) * (a - b), axis=-1)


@_todi.defjvp
def _todi_jvp(
    primals: tuple[LogProbs, LogProbs], tangents: tuple[LogProbs, LogProbs]
) -> tuple[PerToken, PerToken]:
    """σ is a constant here: that is the method."""
    (a, b), (a_dot, b_dot) = primals, tangents
    mass_a, mass_b, gap = jnp.exp(a), jnp.exp(b), a - b
    share = jax.nn.sigmoid(gap)
    change = (share * mass_a * gap + mass_a - mass_b) * a_dot
    change = change + (mass_b - mass_a - (1.0 - share) * mass_b * gap) * b_dot
    return _todi(a, b), jnp.sum(change, axis=-1)


def todi(student: LogProbs, teacher: LogProbs) -> PerToken:
    """Σ_v [σ_v·p log(p/q) + (1−σ_v)·q log(q/p)], σ = sigmoid(log(p/q)) without gradient.

    As σ = p/(p+q), its value is that of `symmetric_kl`; its gradient is not.

    References:
        ToDi (arXiv 2505.16297).
    """
    return _todi(teacher, student)


def gkd_jsd(student: LogProbs, teacher: LogProbs, beta: float = 0.5) -> PerToken:
    """β·KL(p‖m) + (1−β)·KL(q‖m) with m = βp + (1−β)q: TRL's generalized JSD.

    It vanishes towards β = 0 and 1, but its value there is defined as forward and reverse KL: it
    jumps. At any other β it is `jsd` with λ = 1−β.

    References:
        GKD (arXiv 2306.13649); TRL's `generalized_jsd_loss`.
    """
    if beta in (0.0, 1.0):
        return reverse_kl(student, teacher) if beta else forward_kl(student, teacher)
    return jsd(student, teacher, 1.0 - beta)


DIVERGENCES: Mapping[str, DivergenceRule] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "symmetric_kl": symmetric_kl,
    "jsd": jsd,
    "tvd": tvd,
    "skew_forward_kl": skew_forward_kl,
    "skew_reverse_kl": skew_reverse_kl,
    "hellinger": hellinger,
    "adaptive_kl": adaptive_kl,
    "alpha_beta": alpha_beta,
    "todi": todi,
    "gkd_jsd": gkd_jsd,
}


def divergence(
    name: str, student_logits: Logits, teacher_logits: Logits, **options: Any
) -> PerToken:
    """Divergence between teacher p and student q of each token, at temperature 1.

    Args:
        name: a key of `DIVERGENCES`; the function of that name says what it is.
        student_logits: [..., V], any floating dtype; −inf allowed (see `log_probabilities`).
        teacher_logits: [..., V], aligned with the student's.
        **options: the rule's own, numbers known when the loss is compiled.

    Returns:
        Nats per token, ≥ 0 up to rounding, exactly 0 where the logits are equal; float32 or wider.

    Raises:
        ValueError: the name is unknown.

    Gradient flows to the student's logits only.
    """
    rule = choose(DIVERGENCES, "divergence", name)
    teacher = log_probabilities(jax.lax.stop_gradient(teacher_logits))
    options = {name: float(value) for name, value in options.items()}
    return rule(log_probabilities(student_logits), teacher, **options)
