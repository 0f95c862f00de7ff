"""Loss and gradients of one optimizer step, over its micro-batches.

On a mesh, the gradients of several micro-batches are added up over `data` once a step: until then
each device has the sum of its own. Along `fsdp`, where a device has a part of the weights only, a
gradient is scattered to these parts in each micro-batch: kept whole until the end of a step, it
would take the memory that splitting the weights has saved.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from adakd_jax.axes import TokenBatch, row_axes, size_along
from adakd_jax.distill import (
    Denominators,
    LossReport,
    Signals,
    denominators,
    vocab_distillation_loss,
)
from adakd_jax.distill.signals import PER_TOKEN
from adakd_jax.models.lora import combine
from adakd_jax.training.forward import merge, run_models, whole_logits_loss
from adakd_jax.training.learned import as_signals
from adakd_jax.training.parts import StepParts
from adakd_jax.training.routers import RouterReport, router_report, without_router_gradients
from adakd_jax.training.state import TrainState

# Mesh axes along which every device has the whole of what is trained.
_REPLICAS = ("data",)
# Of the student, and of what is learned beside it.
Trained = tuple[Any, Any]


class Frozen(NamedTuple):
    """Weights that a step reads and never changes: the teacher's, and those under adapters."""

    teacher: Any
    base: Any


class _Operands(NamedTuple):
    """What a step's gradients are computed from."""

    trained: Trained
    frozen: Frozen
    batch: TokenBatch
    signals: Signals
    totals: Denominators
    tokens: Array  # of the step, padding not counted


class Reports(NamedTuple):
    """Of the loss's tokens, and of the student's routers if it has experts; micro-batches stacked
    on axis 0.
    """

    loss: LossReport
    routers: RouterReport | None


def loss_and_gradients(
    parts: StepParts, state: TrainState, frozen: Frozen, batch: TokenBatch, signals: Signals
) -> tuple[Array, Reports, Trained]:
    """Loss, its reports [A, …], and the gradients of one step: of the student, and of what is
    learned beside it.
    """
    totals = denominators(parts.distill, batch.labels, signals)
    trained = state.params, None if state.learned is None else state.learned.values
    operands = _Operands(trained, frozen, batch, signals, totals, (batch.segments > 0).sum())
    if batch.tokens.shape[0] == 1:
        first = operands._replace(batch=jax.tree.map(lambda x: x[0], batch))
        outputs, grads = _of_micro_batch(parts, first, jnp.int32(0))
        losses, reports = jax.tree.map(lambda x: x[None], outputs)
    else:
        losses, reports, grads = _accumulated(parts, operands)
    return losses.sum(), reports, grads


def _of_micro_batch(parts: StepParts, operands: _Operands, index: Array) -> tuple[Any, Trained]:
    """Loss and report of one micro-batch, [B, T], and its gradients."""
    frozen, rows, totals = operands.frozen, operands.batch, operands.totals
    key = operands.signals.rng
    key = None if key is None else jax.random.fold_in(key, index)
    loss_of: Any = functools.partial(
        vocab_distillation_loss,
        batch_axes=parts.batch_axes,
        gradient_norms=parts.token_gradients,
    )
    if parts.whole_logits:
        loss_of = whole_logits_loss

    def loss(trained: Trained) -> tuple[Array, Reports]:
        own = trained[0] if parts.trains_router else without_router_gradients(trained[0])
        student = merge(parts.student, combine(frozen.base, own))
        teacher = merge(parts.teacher, frozen.teacher)
        outputs = run_models(student, teacher, rows, parts.layers, key)
        outputs = outputs.within(parts.vocabulary)
        loss, report = loss_of(
            parts.distill,
            *outputs[:4],
            rows.labels,
            operands.signals._replace(rng=key, learned=as_signals(trained[1])),
            cached=rows.taught,
            features=outputs.features,
            denominators=totals,
        )
        if outputs.routing is None:
            return loss, Reports(report, None)
        routers = router_report(outputs.routing, student.config.experts.active, operands.tokens)
        return loss + parts.balance_weight * routers.balance, Reports(report, routers)

    return jax.value_and_grad(loss, has_aux=True)(operands.trained)


def _accumulated(parts: StepParts, operands: _Operands) -> tuple[Array, Reports, Trained]:
    """Losses [A], reports and the sum of the gradients of A micro-batches."""
    axes = _reduced_at_the_end(parts)

    def run(operands: _Operands) -> tuple[Array, Reports, Trained]:
        def add(total: Trained, index_and_rows: tuple[Array, TokenBatch]) -> tuple[Trained, Any]:
            index, rows = index_and_rows
            outputs, grads = _of_micro_batch(parts, operands._replace(batch=rows), index)
            return jax.tree.map(jnp.add, total, grads), outputs

        zeros = jax.tree.map(jnp.zeros_like, operands.trained)
        numbers = jnp.arange(operands.batch.tokens.shape[0])
        grads, (losses, reports) = jax.lax.scan(add, zeros, (numbers, operands.batch))
        return losses, reports, jax.lax.psum(grads, axes) if axes else grads

    if not axes:
        return run(operands)
    by_row: Any = P(None, axes)
    whole: Any = P()
    report = {name: by_row if name in PER_TOKEN else whole for name in LossReport._fields}
    return jax.shard_map(
        run,
        in_specs=(_Operands(whole, whole, by_row, whole, whole, whole),),
        out_specs=(whole, Reports(LossReport(**report), whole), whole),
        axis_names=set(axes),
        check_vma=False,
    )(operands)


def _reduced_at_the_end(parts: StepParts) -> tuple[str, ...]:
    """Mesh axes over which gradients are added up after the last micro-batch."""
    if not parts.batch_axes or parts.whole_logits:
        return ()
    return tuple(axis for axis in _REPLICAS if axis in row_axes() and size_along((axis,)) > 1)
