"""The feature branch over hard tokens in chunks, each device its own: none goes to another."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from adakd_jax.axes import TokenMask, left_axes
from adakd_jax.distill.chunks import buffers_like, chunks_of, put, scaled, take
from adakd_jax.distill.features import distances, project, required_parts
from adakd_jax.distill.signals import Features, Signals


class _Visit(NamedTuple):
    """How the tokens are visited: C at a time, the first dimension sharded over `batch_axes`. Over
    `own_axes` of these gradients are summed here, over the others by the caller (see `Layout`).
    """

    chunk_size: int
    batch_axes: tuple[str, ...]
    own_axes: tuple[str, ...]


def chunked_feature_loss(
    features: Features | None,
    hard: TokenMask,
    signals: Signals,
    total: Float[Array, ""],
    *,
    chunk_size: int,
    batch_axes: tuple[str, ...],
) -> Float[Array, ""]:
    """`feature_loss`, and its gradient, in memory that the number of devices does not move.

    The hard tokens of a device are visited C at a time, so the projection costs what their share of
    the tokens costs, rounded up to a chunk. Sums over devices are taken before the division.

    Args:
        features: hidden states [..., M, D]; the leading axes are those of `hard`.
        hard: [...], see `hard_tokens`.
        signals: `learned["projector"]` is W, [Ds, Dt].
        total: [], what to divide by: the hard tokens of the whole step.
        chunk_size: C, tokens of a device that are projected together.
        batch_axes: mesh axes over which the first dimension is sharded; the mesh is the context's.
            Inside a `shard_map` over some of them the sum is still that of all tokens, but the
            gradients are sums over the others: the caller adds them up.

    Raises:
        ValueError: features or projector are missing.

    Gradient flows to the student's hidden states and to W, whose gradient is summed in float32.
    """
    features, projector = required_parts(features, signals)
    visit = _Visit(min(chunk_size, hard.size), batch_axes, left_axes(batch_axes))
    summed = _summed(visit, features.student, projector, features.teacher, hard)
    return summed / jnp.maximum(total, 1.0).astype(summed.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(
    visit: _Visit, student: Array, projector: Array, teacher: Array, hard: TokenMask
) -> Float[Array, ""]:
    return _on_mesh(visit, student, projector, teacher, hard, gradient=False)[0]


def _summed_forward(visit: _Visit, *operands: Array) -> tuple[Array, tuple[Array, Array]]:
    summed, gradient = _on_mesh(visit, *operands, gradient=True)
    return summed, gradient


def _summed_backward(visit: _Visit, gradient: tuple[Array, Array], cotangent: Array):
    return *scaled(gradient, cotangent), None, None


_summed.defvjp(_summed_forward, _summed_backward)


def _on_mesh(visit: _Visit, *operands: Array, gradient: bool) -> Any:
    """Σ over the hard tokens of all devices, and its gradient by hidden states and projector."""
    run = functools.partial(_own_tokens, visit, gradient=gradient)
    if not visit.own_axes:
        return run(*operands)
    batch: Any = P(visit.own_axes)
    whole: Any = P()
    return jax.shard_map(
        run,
        in_specs=(batch, whole, batch, batch),
        out_specs=(whole, (batch, whole) if gradient else None),
        axis_names=set(visit.own_axes),
        check_vma=False,
    )(*operands)


class _Carry(NamedTuple):
    """The sum, and its gradients by W [Ds, Dt] and by the hidden states of all tokens."""

    summed: Array
    projector: Any
    hidden: Any


def _own_tokens(
    visit: _Visit, student: Array, projector: Array, teacher: Array, hard: Array, *, gradient: bool
) -> tuple[Array, tuple[Array, Array] | None]:
    """One device's tokens."""
    hidden, target = (x.reshape(hard.size, *x.shape[-2:]) for x in (student, teacher))
    narrow = projector.astype(hidden.dtype)
    chunks = chunks_of(hard.reshape(-1), visit.chunk_size, visit.batch_axes)

    def compute(index: Array) -> tuple[Array, _Carry]:
        places = chunks.places(index, visit.chunk_size)
        rows, exists = take(hidden, places), places < hard.size

        def value(projected: Array) -> Array:
            each = distances(projected, take(target, places))
            return jnp.sum(jnp.where(exists, each, 0.0))

        if not gradient:
            return places, _Carry(value(project(rows, narrow)), None, None)
        summed, to_projected = jax.value_and_grad(value)(project(rows, narrow))
        back = to_projected.astype(rows.dtype)
        product: Any = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
        to_projector = product("CMS,CMT->ST", rows, back)
        to_rows = product("CMT,ST->CMS", back, narrow)
        return places, _Carry(summed, to_projector, to_rows.astype(rows.dtype))

    def step(index: Array, carry: _Carry) -> _Carry:
        places, found = compute(index)
        summed, to_projector = jax.tree.map(jnp.add, carry[:2], found[:2])
        return _Carry(summed, to_projector, put(carry.hidden, places, found.hidden))

    _, shapes = jax.eval_shape(compute, jnp.int32(0))
    zero, zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[:2])
    start = _Carry(zero, zeros, buffers_like(shapes.hidden, hard.size))
    found = jax.lax.fori_loop(0, chunks.count, step, start)
    summed, to_projector = found.summed, found.projector
    if visit.batch_axes:
        summed = jax.lax.psum(summed, visit.batch_axes)
    if not gradient:
        return summed, None
    if visit.own_axes:
        to_projector = jax.lax.psum(to_projector, visit.own_axes)
    return summed, (found.hidden.reshape(student.shape), to_projector.astype(projector.dtype))
