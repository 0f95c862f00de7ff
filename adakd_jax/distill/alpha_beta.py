"""The α-β divergence of slot 4, with its limits."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LogProbs = Float[Array, "*tokens V"]
PerToken = Float[Array, "*tokens"]


def alpha_beta(
    student: LogProbs, teacher: LogProbs, alpha: float = 0.2, beta: float = 0.7
) -> PerToken:
    """α-β divergence −1/(αβ)·Σ[p^α q^β − α/(α+β)·p^(α+β) − β/(α+β)·q^(α+β)], and its limits.

        α → 0:    1/β²·Σ[q^β log(q^β/p^β) − q^β + p^β]       (β = 1: reverse KL)
        β → 0:    1/α²·Σ[p^α log(p^α/q^α) − p^α + q^α]       (α = 1: forward KL)
        α+β → 0:  1/α²·Σ[log(q^α/p^α) + p^α/q^α − 1]
        both:     ½ Σ(log p − log q)²

    With an exponent ≤ 0, tokens that neither model would choose weigh as much as the others.

    References:
        ABKD (arXiv 2505.04560).

    Deviations from the released code: its limits carry 1/β and 1/α where 1/β² and 1/α² belong.
    """
    return _alpha_beta(float(alpha), float(beta), teacher, student)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _alpha_beta(alpha: float, beta: float, a: LogProbs, b: LogProbs) -> PerToken:
    """D(e^a, e^b) = Σ [e^(αa)·G_β(a, b) + e^(βb)·G_α(b, a)] / (α+β), see `_gap`.

    Every summand is 0 where a = b. Expanding the brackets gives the definition; in this form the
    limits in α and in β are those of G.
    """
    if alpha + beta == 0.0:
        if alpha == 0.0:
            return 0.5 * jnp.sum((a - b) ** 2, axis=-1)
        ratio = alpha * (a - b)
        return jnp.sum(jnp.expm1(ratio) - ratio, axis=-1) / alpha**2
    summands = jnp.exp(alpha * a) * _gap(beta, a, b) + jnp.exp(beta * b) * _gap(alpha, b, a)
    return jnp.sum(summands, axis=-1) / (alpha + beta)


@_alpha_beta.defjvp
def _alpha_beta_jvp(
    alpha: float,
    beta: float,
    primals: tuple[LogProbs, LogProbs],
    tangents: tuple[LogProbs, LogProbs],
) -> tuple[PerToken, PerToken]:
    """One formula, limits included; exactly 0 where a = b."""
    (a, b), (a_dot, b_dot) = primals, tangents
    change = jnp.exp(beta * b) * _gap(alpha, b, a) * b_dot
    change = change + jnp.exp(alpha * a) * _gap(beta, a, b) * a_dot
    return _alpha_beta(alpha, beta, a, b), jnp.sum(change, axis=-1)


def _gap(power: float, x: LogProbs, y: LogProbs) -> LogProbs:
    """G(x, y) = (e^(power·x) − e^(power·y)) / power; power → 0: x − y."""
    if power == 0.0:
        return x - y
    # The difference first: powers of two nearly equal numbers are rounded apart.
    gap, larger = power * (x - y), jnp.maximum(power * x, power * y)
    return jnp.sign(gap) * jnp.exp(larger) * -jnp.expm1(-jnp.abs(gap)) / power
