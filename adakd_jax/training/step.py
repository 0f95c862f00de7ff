"""The train step: one pure function of pytrees, compiled once per run.

teacher forward → scores → selection → temperatures → divergence → gradients → optimizer (LATF
inside) → metrics.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array

from adakd_jax.axes import Head, TokenBatch
from adakd_jax.config import DistillConfig, TopRatio
from adakd_jax.distill import (
    Denominators,
    LossReport,
    Signals,
    denominators,
    distillation_loss,
    vocab_distillation_loss,
)
from adakd_jax.models import logits
from adakd_jax.training.metrics import step_metrics
from adakd_jax.training.state import TrainState

Metrics = dict[str, Array]
TrainStep = Callable[[TrainState, Any, TokenBatch], tuple[TrainState, Metrics]]


class StepParts(NamedTuple):
    """The static half of a train step: everything that is fixed when it is compiled."""

    distill: DistillConfig
    optimizer: optax.GradientTransformationExtraArgs
    schedule: optax.Schedule
    student: nnx.GraphDef
    teacher: nnx.GraphDef
    total_steps: int
    average_decay: float | None = None
    whole_logits: bool = False  # only to be compared with: see `whole_logits_loss`


def keep_ratio(config: DistillConfig, opt_state: optax.OptState) -> Array:
    """Share r of response tokens to keep in this step: LATF's state before its update, a constant,
    or 1.
    """
    ratio = optax.tree.get(opt_state, "keep_ratio")
    if ratio is not None:
        return ratio
    return jnp.float32(config.focus.ratio if isinstance(config.focus, TopRatio) else 1.0)


def make_train_step(parts: StepParts) -> TrainStep:
    """Build the jitted step `(state, teacher_params, batch) → (state, metrics)`.

    The batch is [A, B, T]: A micro-batches whose numerators and denominators are summed over the
    step before any division. The state is donated; the teacher's weights are an argument and are
    not. The kept ratio is traced, so its changes never recompile. An update whose loss or gradient
    is not finite, or whose batch has no response token, leaves params, optimizer (LATF included)
    and average untouched; step count and data position still advance.
    """

    def train_step(state: TrainState, teacher_params: Any, batch: TokenBatch):
        step_key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        signals = Signals(
            keep_ratio=keep_ratio(parts.distill, state.opt_state),
            progress=state.step / parts.total_steps,
            rng=step_key,
        )
        loss, report, grads = _loss_and_gradients(
            parts, state.params, teacher_params, batch, signals
        )
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        accepted = finite & (report.response_tokens.sum() > 0)
        metrics = step_metrics(batch, loss, report, signals.keep_ratio)
        after = _update(parts, state, grads, metrics, accepted, finite)
        return after, metrics | _optimizer_metrics(parts, state, after, grad_norm, accepted)

    return jax.jit(train_step, donate_argnums=0)


def whole_logits_loss(
    config: DistillConfig,
    student_hidden: Array,
    student_head: Head,
    teacher_hidden: Array,
    teacher_head: Head,
    labels: Array,
    signals: Signals,
    *,
    denominators: Denominators | None = None,
) -> tuple[Array, LossReport]:
    """`vocab_distillation_loss` by way of [B, T, V]: what benchmarks compare with."""
    size = min(student_head.size, teacher_head.size)
    student_logits = logits(student_hidden, student_head._replace(size=size))
    teacher_logits = logits(teacher_hidden, teacher_head._replace(size=size))
    return distillation_loss(
        config, student_logits, teacher_logits, labels, signals, denominators=denominators
    )


def _loss_and_gradients(
    parts: StepParts, params: Any, teacher_params: Any, batch: TokenBatch, signals: Signals
) -> tuple[Array, LossReport, Any]:
    """Loss, its per-token report [A, …] and the gradients of one step."""
    totals = denominators(parts.distill, batch.labels, signals)

    def micro_batch_loss(params: Any, rows: TokenBatch, signals: Signals):
        inputs = (rows.tokens, rows.positions, rows.segments)
        teacher = nnx.merge(parts.teacher, teacher_params)
        student = nnx.merge(parts.student, params)
        hidden = student(*inputs), jax.lax.stop_gradient(teacher(*inputs))
        heads = student.head(), teacher.head()
        loss = whole_logits_loss if parts.whole_logits else vocab_distillation_loss
        return loss(
            parts.distill,
            hidden[0],
            heads[0],
            hidden[1],
            heads[1],
            rows.labels,
            signals,
            denominators=totals,
        )

    def gradients(index: Array, rows: TokenBatch):
        key = None if signals.rng is None else jax.random.fold_in(signals.rng, index)
        micro_signals = signals._replace(rng=key)
        return jax.value_and_grad(micro_batch_loss, has_aux=True)(params, rows, micro_signals)

    def accumulate(total: Any, index_and_rows: tuple[Array, TokenBatch]):
        outputs, grads = gradients(*index_and_rows)
        return jax.tree.map(jnp.add, total, grads), outputs

    count = batch.tokens.shape[0]
    if count == 1:
        outputs, grads = gradients(jnp.int32(0), jax.tree.map(lambda x: x[0], batch))
        losses, reports = jax.tree.map(lambda x: x[None], outputs)
    else:
        zeros = jax.tree.map(jnp.zeros_like, params)
        grads, (losses, reports) = jax.lax.scan(accumulate, zeros, (jnp.arange(count), batch))
    return losses.sum(), reports, grads


def _update(
    parts: StepParts,
    state: TrainState,
    grads: Any,
    metrics: Metrics,
    accepted: Array,
    finite: Array,
) -> TrainState:
    """Apply an accepted update; otherwise keep everything but the counters."""
    updates, opt_state = parts.optimizer.update(
        grads,
        state.opt_state,
        state.params,
        kd_loss=metrics["monitored_loss"],
        tokens=metrics["response_tokens"],
    )
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if parts.average_decay is not None:
        average = optax.incremental_update(params, average, 1.0 - parts.average_decay)
    kept = (state.params, state.opt_state, state.average)
    params, opt_state, average = optax.tree.where(accepted, (params, opt_state, average), kept)
    return TrainState(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        average=average,
        rng=state.rng,
        skipped=state.skipped + jnp.where(accepted, 0, 1),
        bad_streak=jnp.where(finite, 0, state.bad_streak + 1),
    )


def _optimizer_metrics(
    parts: StepParts, before: TrainState, after: TrainState, grad_norm: Array, accepted: Array
) -> Metrics:
    """What the optimizer did in this step."""
    metrics = {
        "grad_norm": grad_norm,
        "learning_rate": jnp.asarray(parts.schedule(before.step - before.skipped)),
        "accepted": accepted.astype(jnp.float32),
        "skipped_steps": after.skipped,
        "bad_streak": after.bad_streak,
    }
    for name in ("ema", "reference"):
        value = optax.tree.get(after.opt_state, name)
        if value is not None:
            metrics[f"latf_{name}"] = value
    return metrics
