"""Inverse difficulty temperature scaling (AdaKD): a temperature for each token, from its score."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from adakd_jax.axes import PerToken
from adakd_jax.distill.order_statistics import kth_smallest


def lower_median(values: PerToken, selected: Bool[Array, "*tokens"]) -> Float[Array, ""]:
    """Value at ascending index (k−1)//2 of the k selected ones; +inf for k = 0. No gradient."""
    count = selected.sum(dtype=jnp.int32)
    competing = jnp.where(selected, values, jnp.inf).reshape(-1)
    return kth_smallest(competing, jnp.maximum(count - 1, 0) // 2)


def idts_temperature(
    scores: PerToken,
    selected: Bool[Array, "*tokens"],
    base: ArrayLike = 1.0,
    strength: ArrayLike = 0.5,
    inverse: bool = True,
    median: Literal["batch", "row"] = "batch",
    differentiable: bool = False,
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
        median: of all selected tokens, or of those with the same last axis.
        differentiable: whether a gradient flows to the scores.

    Returns:
        τ [...]; τ_base where a token is not selected, and everywhere if all selected scores are
        equal. If differentiable, with dτ/ds = ∓c·τ·4sm²/(s² + m²)² and, through the median, dτ/dm
        = ±c·τ·4s²m/(s² + m²)², which equal scores share alike; both are 0 where s or m is. Else no
        gradient.

    Scope: the median is over all tokens given, which must be the global micro-batch.

    References:
        AdaKD (arXiv 2510.11615) eqs. 9-10.

    Deviations from the released code: no gradient through τ, unless asked for, and then not NaN
    where student = teacher; τ_base is applied once; no ε, since 0/0 (student = teacher on the
    median token and on this one) is ŝ = 0.
    """
    if median == "row":
        of_row = functools.partial(
            _idts_of, base=base, strength=strength, inverse=inverse, differentiable=differentiable
        )
        return jnp.vectorize(of_row, signature="(t),(t)->(t)")(scores, selected)
    return _idts_of(scores, selected, base, strength, inverse, differentiable)


def _idts_of(
    scores: PerToken,
    selected: Bool[Array, "*tokens"],
    base: ArrayLike,
    strength: ArrayLike,
    inverse: bool,
    differentiable: bool,
) -> PerToken:
    """τ of tokens that have one median."""
    if not differentiable:
        scores = jax.lax.stop_gradient(scores)
    scores = jnp.maximum(scores, 0.0)
    middle = lower_median(scores, selected)
    if differentiable:
        middle = _with_gradient(middle, scores, selected)
    scores = jnp.where(selected, scores, middle)
    exponent = -_hardness(scores, middle) if inverse else _hardness(scores, middle)
    return jnp.asarray(base, scores.dtype) * jnp.exp(strength * exponent)


def _with_gradient(middle: Array, scores: PerToken, selected: Bool[Array, "*tokens"]) -> Array:
    """The median with the gradient of the scores that equal it, in equal shares."""
    tied = selected & (jax.lax.stop_gradient(scores) == middle)
    share = 1.0 / jnp.maximum(tied.sum(), 1).astype(scores.dtype)
    change = jnp.where(tied, scores - jax.lax.stop_gradient(scores), 0.0)
    return middle + share * jnp.sum(change)


@jax.custom_jvp
def _hardness(scores: PerToken, median: Float[Array, ""]) -> PerToken:
    """ŝ = (s² − m²)/(s² + m²).

    |ŝ| = (1 − x²)/(1 + x²) with x = min/max ≤ 1 neither overflows nor underflows, whatever the
    scale of the scores.
    """
    larger = jnp.maximum(scores, median)
    quotient = jnp.minimum(scores, median) / jnp.where(larger > 0.0, larger, 1.0)
    square = jnp.square(jnp.where(scores == median, 1.0, quotient))
    return jnp.where(scores < median, -1.0, 1.0) * (1.0 - square) / (1.0 + square)


@_hardness.defjvp
def _hardness_jvp(
    primals: tuple[PerToken, Array], tangents: tuple[PerToken, Array]
) -> tuple[PerToken, PerToken]:
    """dŝ = 4ab(b·ds − a·dm)/(λ(a² + b²)²), a = s/λ, b = m/λ, λ the larger of s and m."""
    (scores, median), (scores_dot, median_dot) = primals, tangents
    larger = jnp.maximum(scores, median)
    usable = (larger > 0.0) & (larger < jnp.inf)
    scale = jnp.where(usable, larger, 1.0)
    a = jnp.where(usable, scores / scale, 1.0)
    b = jnp.where(usable, median / scale, 1.0)
    slope = jnp.where(usable, 4.0 * a * b / (scale * jnp.square(a * a + b * b)), 0.0)
    return _hardness(scores, median), slope * (b * scores_dot - a * median_dot)
