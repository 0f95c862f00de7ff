"""Log-probabilities that are finite for every logit a model can emit."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adakd_jax.axes import Logits

# A token whose log-probability lies below the first number cannot be drawn: its logit is −inf or
# one of the large negative constants that masks are made of. It counts as the second number, just
# below the smallest positive float32.
IMPOSSIBLE = -1e8
FLOOR = -104.0


@jax.custom_jvp
def _log_softmax(logits: Logits) -> Float[Array, "*tokens V"]:
    """Log-softmax that keeps only its result for the backward pass.

    So a differentiated and an undifferentiated call compile to the same sums, in the same order,
    and equal logits of student and teacher have equal log-probabilities to the last bit.
    """
    shifted = logits - jnp.max(logits, axis=-1, keepdims=True)
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True))


@_log_softmax.defjvp
def _log_softmax_jvp(
    primals: tuple[Logits], tangents: tuple[Logits]
) -> tuple[Float[Array, "*tokens V"], Float[Array, "*tokens V"]]:
    (logits,), (logits_dot,) = primals, tangents
    log_probs = _log_softmax(logits)
    mean = jnp.sum(jnp.exp(log_probs) * logits_dot, axis=-1, keepdims=True)
    return log_probs, logits_dot - mean


def log_probabilities(
    logits: Logits, temperature: Float[Array, "*tokens"] | None = None
) -> Float[Array, "*tokens V"]:
    """Log-softmax over the vocabulary: log softmax(z / τ).

    Every entry is finite as long as one logit of the row is: a token that a model rules out (logit
    −inf) has log-probability −104 (its probability is 0 in float32) and no gradient. So a token
    that both models rule out adds exactly 0 to a divergence, and one that a single model rules out
    costs the other's probability times about 104 nats where the definition says infinity.

    Args:
        logits: z, any floating dtype; computed in float32 or wider.
        temperature: τ > 0 per token; None is 1.

    Returns:
        Log-probabilities in nats, float32 or wider.
    """
    if jnp.finfo(logits.dtype).bits < 32:
        logits = logits.astype(jnp.float32)
    if temperature is not None:
        logits = logits / temperature[..., None].astype(logits.dtype)
    log_probs = _log_softmax(logits)
    return jnp.where(log_probs < IMPOSSIBLE, FLOOR, log_probs)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def log_mixture(
    a: Float[Array, "*tokens V"], b: Float[Array, "*tokens V"], share: float
) -> Float[Array, "*tokens V"]:
    """log((1 − share)·e^a + share·e^b); exactly a where a = b. `share` in [0, 1] is static."""
    if share in (0.0, 1.0):
        return b if share else a
    lower = jnp.where(a >= b, jnp.full_like(a, share), 1.0 - share)
    return jnp.maximum(a, b) + jnp.log1p(lower * jnp.expm1(-jnp.abs(a - b)))


@log_mixture.defjvp
def _log_mixture_jvp(
    share: float, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (a, b), (a_dot, b_dot) = primals, tangents
    mixture = log_mixture(a, b, share)
    change = (1.0 - share) * jnp.exp(a - mixture) * a_dot + share * jnp.exp(b - mixture) * b_dot
    return mixture, change


def entropy(log_probs: Float[Array, "*tokens V"]) -> Float[Array, "*tokens"]:
    """−Σ p log p, nats."""
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
