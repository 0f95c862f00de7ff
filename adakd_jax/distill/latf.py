"""Slot 2's controller: loss-driven adaptive token focusing (LATF)."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array


class LatfState(NamedTuple):
    """State of the controller, one scalar each.

    Attributes:
        count: int32, accepted optimizer steps so far.
        ema: float32, moving average of the watched loss.
        reference: float32, the average when the ratio last moved (or at the end of the warm-up).
        keep_ratio: float32 in [min_ratio, 1], the share of tokens that the next step keeps.
    """

    count: Array
    ema: Array
    reference: Array
    keep_ratio: Array


def latf(
    warmup_steps: int,
    ema: float = 0.99,
    tolerance: float = 0.05,
    step_size: float = 0.05,
    min_ratio: float = 0.1,
) -> optax.GradientTransformationExtraArgs:
    """Shrink the share of kept tokens while the loss falls, widen it when the loss rises.

    Per accepted optimizer step, with t the count, W = `warmup_steps` and r the ratio:

        ema ← β·ema + (1−β)·loss             (t = 1: ema ← loss)
        t ≤ W: r = 1; at t = W: reference ← ema
        ema < reference·(1−ε): r ← max(r·(1−δ), r_min), reference ← ema
        ema > reference·(1+ε): r ← min(r·(1+δ), 1),     reference ← ema

    A link of an optax chain that leaves the gradients alone:

        update(grads, state, params, *, kd_loss, tokens) -> (grads, state)

    with the step's watched loss [] and its number of response tokens []. Without a token, or if the
    loss is not finite, the state stays as it is. The ratio that the next step uses is
    `optax.tree.get(opt_state, "keep_ratio")`.

    Args:
        warmup_steps: W ≥ 1, optimizer steps before the ratio may move.
        ema: decay β of the average, in [0, 1).
        tolerance: relative change ε of the average that moves the ratio, in (0, 1).
        step_size: relative change δ of the ratio, in (0, 1).
        min_ratio: r_min, in (0, 1].

    Returns:
        The transformation; its state is a `LatfState`.

    Raises:
        ValueError: an argument is out of range.

    Scope: the loss and the token count are those of the whole step, over all devices and
    micro-batches.

    References:
        AdaKD (arXiv 2510.11615) eqs. 5-7 and Algorithm 1.

    Deviations: Algorithm 1 read literally starts from an infinite reference and shrinks r from the
    first step; here the ratio waits for the warm-up. r_min exists only in the released code, which
    also updates once per micro-batch.
    """
    _check_arguments(warmup_steps, ema, tolerance, step_size, min_ratio)

    def init(params: optax.Params) -> LatfState:
        zero = jnp.zeros((), jnp.float32)
        return LatfState(jnp.zeros((), jnp.int32), zero, zero, jnp.ones((), jnp.float32))

    def advance(state: LatfState, loss: Array) -> LatfState:
        count = state.count + 1
        average = jnp.where(count == 1, loss, ema * state.ema + (1.0 - ema) * loss)
        controlled = count > warmup_steps
        falls = controlled & (average < state.reference * (1.0 - tolerance))
        rises = controlled & (average > state.reference * (1.0 + tolerance))
        lower = jnp.maximum(state.keep_ratio * (1.0 - step_size), min_ratio)
        higher = jnp.minimum(state.keep_ratio * (1.0 + step_size), 1.0)
        ratio = jnp.where(falls, lower, jnp.where(rises, higher, state.keep_ratio))
        moved = falls | rises | (count == warmup_steps)
        return LatfState(count, average, jnp.where(moved, average, state.reference), ratio)

    def update(
        updates: optax.Updates,
        state: LatfState,
        params: optax.Params | None = None,
        *,
        kd_loss: ArrayLike,
        tokens: ArrayLike,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LatfState]:
        loss = jax.lax.stop_gradient(jnp.asarray(kd_loss, jnp.float32))
        accepted = jnp.isfinite(loss) & (jnp.asarray(tokens) > 0)
        return updates, optax.tree.where(accepted, advance(state, loss), state)

    return optax.GradientTransformationExtraArgs(init, cast(optax.TransformUpdateFn, update))


def _check_arguments(
    warmup_steps: int, ema: float, tolerance: float, step_size: float, min_ratio: float
) -> None:
    """Name every argument out of range, with its value and range, in one error."""
    checks = {
        f"warmup_steps = {warmup_steps} must be an integer ≥ 1": (
            isinstance(warmup_steps, int) and warmup_steps >= 1
        ),
        f"ema = {ema} must be in [0, 1)": 0.0 <= ema < 1.0,
        f"tolerance = {tolerance} must be in (0, 1)": 0.0 < tolerance < 1.0,
        f"step_size = {step_size} must be in (0, 1)": 0.0 < step_size < 1.0,
        f"min_ratio = {min_ratio} must be in (0, 1]": 0.0 < min_ratio <= 1.0,
    }
    if problems := [message for message, valid in checks.items() if not valid]:
        raise ValueError("latf: " + "; ".join(problems))
