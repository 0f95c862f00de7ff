"""Slot 4: how far the student's next-token distribution q is from the teacher's p.

A rule takes log-probabilities of student and teacher, [..., V] each, at the token's temperature,
and its options by keyword; it returns nats per token, [...]. It sees one slice of tokens at a time,
so it may not look across tokens.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adakd_jax.axes import Logits, PerToken
from adakd_jax.distill.log_probability import log_probabilities
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


DIVERGENCES: Mapping[str, DivergenceRule] = {"forward_kl": forward_kl, "reverse_kl": reverse_kl}


def divergence(
    name: str, student_logits: Logits, teacher_logits: Logits, **options: Any
) -> PerToken:
    """Divergence between teacher p and student q of each token, at temperature 1.

    Args:
        name: a key of `DIVERGENCES`: `forward_kl` or `reverse_kl`.
        student_logits: [..., V], any floating dtype; −inf allowed (see `log_probabilities`).
        teacher_logits: [..., V], aligned with the student's.
        **options: the rule's own options.

    Returns:
        Nats per token, ≥ 0, exactly 0 where the logits are equal; float32 or wider.

    Raises:
        ValueError: the name is unknown.

    Gradient flows to the student's logits only.
    """
    rule = choose(DIVERGENCES, "divergence", name)
    teacher = log_probabilities(jax.lax.stop_gradient(teacher_logits))
    return rule(log_probabilities(student_logits), teacher, **options)
