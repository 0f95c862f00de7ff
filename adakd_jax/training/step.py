"""The train step: one pure function of pytrees, compiled once per run.

teacher forward → scores → selection → temperatures → divergence → gradients → optimizer (LATF
inside) → metrics.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from adakd_jax.axes import TokenBatch
from adakd_jax.distill import Signals, is_review
from adakd_jax.sharding import replicated_like
from adakd_jax.training.gradients import Frozen, loss_and_gradients
from adakd_jax.training.learned import Learned
from adakd_jax.training.metrics import step_metrics
from adakd_jax.training.parts import StepParts
from adakd_jax.training.routers import router_metrics
from adakd_jax.training.state import TrainState, decay_of_average

Metrics = dict[str, Array]
# (state, teacher's weights, batch, base=None) → (state, metrics)
TrainStep = Callable[..., tuple[TrainState, Metrics]]


def keep_ratio(opt_state: optax.OptState) -> Array:
    """LATF's share r of response tokens before its update, or 1 without LATF."""
    ratio = optax.tree.get(opt_state, "keep_ratio")
    return jnp.float32(1.0) if ratio is None else ratio


def make_train_step(parts: StepParts, shardings: Any = None) -> TrainStep:
    """Build the jitted step `(state, teacher_params, batch, base=None) → (state, metrics)`.

    The batch is [A, B, T]: A micro-batches whose numerators and denominators are summed over the
    step before any division. The state is donated; the teacher's weights are an argument and are
    not, and None where the teacher has no say; nor is `base`, the student's frozen weights where
    the state's are adapters. The kept ratio is traced, so its changes never
    recompile. An update whose loss or gradient is not finite, or whose batch has no response token,
    leaves params, optimizer (LATF included), what is learned besides, and average untouched; step
    count and data position still advance. A review step (`review_ratio`) leaves LATF alone.

    On a mesh, `shardings` are those of the state, which it keeps.
    """

    def train_step(state: TrainState, teacher_params: Any, batch: TokenBatch, base: Any = None):
        step_key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        signals = Signals(
            keep_ratio=keep_ratio(state.opt_state),
            progress=state.step / parts.total_steps,
            rng=step_key,
        )
        review = jnp.asarray(is_review(parts.distill, signals))
        signals = signals._replace(review=review)
        loss, reports, grads = loss_and_gradients(
            parts, state, Frozen(teacher_params, base), batch, signals
        )
        grad_norm = optax.tree.norm(grads[0])
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm + optax.tree.norm(grads[1]))
        accepted = finite & (reports.loss.response_tokens.sum() > 0)
        metrics = step_metrics(parts.distill, batch, loss, reports.loss, signals.keep_ratio)
        if reports.routers is not None:
            metrics |= router_metrics(reports.routers, metrics["tokens"])
        # LATF does not compare a review with the steps around it: it is told of no tokens.
        watched = jnp.where(review, 0.0, metrics["response_tokens"])
        after = _update(parts, state, grads, (metrics["monitored_loss"], watched), accepted, finite)
        return after, metrics | _optimizer_metrics(parts, state, after, grad_norm, accepted)

    kept = None if shardings is None else (shardings, replicated_like(shardings))
    return jax.jit(train_step, donate_argnums=0, out_shardings=kept)


def _update(
    parts: StepParts,
    state: TrainState,
    grads: tuple[Any, Any],
    watched: tuple[Array, Array],
    accepted: Array,
    finite: Array,
) -> TrainState:
    """Apply an accepted update; otherwise keep everything but the counters. `watched` is what LATF
    is told: a loss, and of how many tokens.
    """
    updates, opt_state = parts.optimizer.update(
        grads[0], state.opt_state, state.params, kd_loss=watched[0], tokens=watched[1]
    )
    params = optax.apply_updates(state.params, updates)
    average, learned = state.average, state.learned
    if parts.average_decay is not None:
        decay = decay_of_average(parts.average_decay, state.step - state.skipped)
        average = optax.incremental_update(params, average, 1.0 - decay)
    if learned is not None and parts.learner is not None:
        updates, learner_state = parts.learner.update(
            grads[1], learned.opt_state, learned.values, progress=state.step / parts.total_steps
        )
        values: Any = optax.apply_updates(learned.values, updates)
        learned = Learned(values, learner_state)
    kept = (state.params, state.opt_state, state.average, state.learned)
    changed = (params, opt_state, average, learned)
    params, opt_state, average, learned = optax.tree.where(accepted, changed, kept)
    return TrainState(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        average=average,
        rng=state.rng,
        skipped=state.skipped + jnp.where(accepted, 0, 1),
        bad_streak=jnp.where(finite, 0, state.bad_streak + 1),
        learned=learned,
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
    if after.learned is not None and "log_temperature" in after.learned.values:
        metrics["learned_temperature"] = jnp.exp(after.learned.values["log_temperature"])
    for name in ("ema", "reference"):
        value = optax.tree.get(after.opt_state, name)
        if value is not None:
            metrics[f"latf_{name}"] = value
    return metrics
