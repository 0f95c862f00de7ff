"""The feature branch: hidden states of hard tokens, projected and compared with the teacher's."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from adakd_jax.axes import TokenMask
from adakd_jax.config.distill import DistillConfig, HiddenStates
from adakd_jax.distill.chunks import take
from adakd_jax.distill.focus import rank_share
from adakd_jax.distill.signals import Features, Signals

EPSILON = 1e-5  # added to the variance before its root, as in the models' norms


def hard_tokens(
    config: HiddenStates, entropy_rank: Float[Array, "*tokens"], mask: TokenMask
) -> TokenMask:
    """Response tokens whose teacher entropy ranks above the threshold: u > θ."""
    return mask & _above(config, entropy_rank)


def hard_count(config: HiddenStates, mask: TokenMask) -> Float[Array, ""]:
    """How many `hard_tokens` there are, whichever they are; float32."""
    ranks = jnp.arange(mask.size, dtype=jnp.int32)
    exists = ranks < mask.sum(dtype=jnp.int32)
    return jnp.sum(exists & _above(config, rank_share(ranks, mask)), dtype=jnp.float32)


def _above(config: HiddenStates, share: Float[Array, "..."]) -> Bool[Array, "..."]:
    """Whether u > θ, with room for the rounding of a share: 9 of 10 is not above .9."""
    return share > config.threshold + 1e-6


def mapped_layers(
    count: int, student_layers: int, teacher_layers: int
) -> tuple[tuple[int, int], ...]:
    """The pairs of layers (student, teacher), from 0, after which hidden states are compared.

    Evenly spaced in each model; the last pair is the last layers.

    Raises:
        ValueError: `count` is more than either model's layers.
    """
    if count > min(student_layers, teacher_layers):
        raise ValueError(
            f"distill.features.layers = {count}: the models have {student_layers} (student) and "
            f"{teacher_layers} (teacher) layers; valid: 1 to {min(student_layers, teacher_layers)}"
        )
    steps = range(1, count + 1)
    return tuple(
        (round(step * student_layers / count) - 1, round(step * teacher_layers / count) - 1)
        for step in steps
    )


def feature_loss(
    config: DistillConfig,
    features: Features | None,
    hard: TokenMask,
    signals: Signals,
    total: Float[Array, ""],
) -> Float[Array, ""]:
    """Σ over hard tokens of ‖LN(h_student·W) − LN(h_teacher)‖² / D, mean over layers, by `total`.

    LN is layer normalisation without parameters. The hard tokens are first gathered into a buffer
    that holds them all, so that the projection costs what their share of the tokens costs. Where
    tokens are sharded, see `chunked_feature_loss`.

    Args:
        config: the loss.
        features: hidden states [..., M, D]; their leading axes are those of `hard`.
        hard: [...], see `hard_tokens`.
        signals: `learned["projector"]` is W, [Ds, Dt].
        total: [], what to divide by: the hard tokens of the whole step.

    Returns:
        [], float32, without weight; 0 if no token is hard.

    Raises:
        ValueError: features or projector are missing.

    Gradient flows to the student's hidden states and to W.

    References:
        EGAD (arXiv 2605.01732) publishes the idea (features too on tokens where the teacher's
        entropy is high) and no formula; this one is our interpretation.
    """
    features, projector = required_parts(features, signals)
    share = math.ceil((1.0 - config.features.threshold) * max(hard.size - 1, 0)) + 1
    places = jnp.nonzero(hard.reshape(-1), size=min(share, hard.size), fill_value=hard.size)[0]
    student, teacher = (
        take(x.reshape(hard.size, *x.shape[-2:]), places)
        for x in (features.student, jax.lax.stop_gradient(features.teacher))
    )
    each = distances(project(student, projector.astype(student.dtype)), teacher)
    summed = jnp.sum(jnp.where(places < hard.size, each, 0.0))
    return summed / jnp.maximum(total, 1.0).astype(summed.dtype)


def required_parts(features: Features | None, signals: Signals) -> tuple[Features, Array]:
    """Hidden states and projector.

    Raises:
        ValueError: one of them is missing.
    """
    if features is None:
        raise ValueError("features: distill.feature_weight > 0 needs hidden states, Features(…)")
    if signals.learned is None or "projector" not in signals.learned:
        raise ValueError("features: Signals.learned['projector'] [Ds, Dt] is missing")
    return features, signals.learned["projector"]


def project(student: Float[Array, "C M S"], projector: Float[Array, "S T"]) -> Array:
    """h·W, float32 or wider."""
    return jnp.einsum("CMS,ST->CMT", student, projector, preferred_element_type=jnp.float32)


def distances(
    projected: Float[Array, "C M D"], teacher: Float[Array, "C M D"]
) -> Float[Array, " C"]:
    """‖LN(h·W) − LN(h_teacher)‖² / D of each token, mean over layers."""
    difference = _normalized(projected) - _normalized(teacher)
    return jnp.mean(jnp.square(difference), axis=(-2, -1))


def _normalized(x: Float[Array, "C M D"]) -> Float[Array, "C M D"]:
    """Layer normalisation over D in float32 or wider."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + EPSILON)
