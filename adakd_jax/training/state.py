"""What a run carries from step to step, and nothing else: all of it goes into a checkpoint."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from adakd_jax.policies.replay import Replay
from adakd_jax.training.learned import Learned


class TrainState(NamedTuple):
    """The student and everything that decides its next step. The teacher is never part of it.

    Attributes:
        step: int32 [], steps taken, skipped ones included; also the position in the data.
        params: the student's float32 weights that are trained: all, or its adapters alone.
        opt_state: the optax state, LATF's included; it advances on accepted steps only.
        average: a moving average of `params`, or None.
        rng: uint32 key data; step k uses `fold_in(rng, k)`.
        skipped: int32 [], updates skipped so far.
        bad_streak: int32 [], non-finite updates in a row up to now.
        learned: what the method trains beside the student, or None.
        replay: responses that DistiLLM replays, on the host; the train step is not given them.
    """

    step: Array
    params: Any
    opt_state: optax.OptState
    average: Any
    rng: Array
    skipped: Array
    bad_streak: Array
    learned: Learned | None = None
    replay: Replay | None = None


def init_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    average: bool = False,
    learned: dict[str, Array] | None = None,
    learner: optax.GradientTransformation | None = None,
    shardings: Callable[[Any], Any] = lambda tree: None,
) -> TrainState:
    """Start a run from `params`; `average` also starts a moving average of the weights, `learner`
    the training of `learned`.

    No two leaves share a buffer, so that the whole state can be donated. `shardings` gives those of
    the optimizer's state from its shapes: its moments are made in their shards.
    """
    split = shardings(jax.eval_shape(optimizer.init, params))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=jax.jit(optimizer.init, out_shardings=split)(params),
        average=jax.tree.map(jnp.copy, params) if average else None,
        rng=jax.random.key_data(jax.random.key(seed)),
        skipped=jnp.zeros((), jnp.int32),
        bad_streak=jnp.zeros((), jnp.int32),
        learned=None
        if learner is None or not learned
        else Learned(learned, jax.jit(learner.init)(learned)),
    )


def decay_of_average(decay: float, updates: Array) -> Array:
    """The decay of the moving average in one update: min(decay, (1 + t)/(10 + t)).

    The average starts as the untrained weights. At a decay of .999 they would be 98% of it after 20
    steps; with this warm-up they are a ten-millionth, as the average is over the last tenth of the
    updates until `decay` is reached. A division by 1 − decayᵗ (`optax.ema(debias=True)`) would rid
    it of them too, but weighs all updates of a short run alike, the first ones included, and needs
    an average that starts at zero: other checkpoints, and nothing to evaluate before training.

    Args:
        decay: what it comes to, in (0, 1).
        updates: t, accepted so far; [].
    """
    return jnp.minimum(decay, (1.0 + updates) / (10.0 + updates))


def evaluated_params(state: TrainState) -> Any:
    """The weights that are evaluated and exported: the average where there is one."""
    return state.params if state.average is None else state.average
