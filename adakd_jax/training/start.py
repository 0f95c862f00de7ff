"""Where training starts: the first state of a new run, or the newest checkpoint of an earlier
start.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

from adakd_jax.config import DistiLlm, Gkd
from adakd_jax.console import Console
from adakd_jax.eval.answers import end_tokens
from adakd_jax.hf.vocabulary import usable_vocabulary
from adakd_jax.policies import DatasetResponses, StudentResponses
from adakd_jax.training.checkpoint import Checkpoints
from adakd_jax.training.inputs import ACCEPT, OtherInputsError
from adakd_jax.training.prepare import Run
from adakd_jax.training.state import TrainState, init_state
from adakd_jax.training.step import StepParts


def start(run: Run, parts: StepParts, checkpoints: Checkpoints, console: Console) -> TrainState:
    """The newest checkpoint, or the first state of a new run; never both at once."""
    if checkpoints.latest_step is None:
        return first_state(run, parts)
    _check_step(run, checkpoints.latest_step, parts.total_steps)
    console.print(f"reading the checkpoint of step {checkpoints.latest_step}")
    like = _state_shapes(run, parts)
    for leaf in jax.tree.leaves(run.trained):
        if isinstance(leaf, jax.Array):  # of who prepared a new run
            leaf.delete()
    restored = checkpoints.restore(like)
    assert restored is not None
    console.print(f"continuing after step {int(restored.step)} of {parts.total_steps}")
    return restored


def _check_step(run: Run, step: int, total_steps: int) -> None:
    """Refuse a checkpoint past the end of the run, as rows that are gone leave it."""
    if step <= total_steps or run.config.checkpoint.accept_changed_inputs:
        return
    raise OtherInputsError(
        f"{run.config.run_dir} has a checkpoint of step {step}, but its data makes "
        f"{total_steps} steps now: rows are gone or others; valid: the rows that it began with; "
        f"another --run_dir, to start a new run; or --{ACCEPT} true, to take it for finished"
    )


def first_state(run: Run, parts: StepParts) -> TrainState:
    """The state of a new run; it holds the student's own weights, which a step is given away."""
    state = _initial(run, parts, run.trained, run.shardings)
    if run.mesh is not None:
        state = jax.device_put(state, run.shardings(state))
    return state._replace(replay=responses_of(run).initial())


def _state_shapes(run: Run, parts: StepParts) -> TrainState:
    """Shapes, types and places of a state, for a checkpoint to be read into; it is never made."""
    shapes = jax.eval_shape(functools.partial(_initial, run, parts), run.trained)
    alone = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    places = run.shardings(shapes) or jax.tree.map(lambda _: alone, shapes)
    placed = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        places,
    )
    return placed._replace(replay=responses_of(run).initial())


def _initial(
    run: Run,
    parts: StepParts,
    trained: Any,
    shardings: Callable[[Any], Any] = lambda tree: None,
) -> TrainState:
    return init_state(
        trained,
        parts.optimizer,
        seed=run.config.seed,
        average=parts.average_decay is not None,
        learned=run.learned(),
        learner=parts.learner,
        shardings=shardings,
    )


def responses_of(run: Run) -> DatasetResponses:
    """Where the responses of each step come from."""
    policy, tokenizer = run.config.policy, run.student.tokenizer
    if not isinstance(policy, Gkd | DistiLlm):
        return DatasetResponses()
    pad = None if tokenizer is None else tokenizer.pad_token_id
    return StudentResponses(
        policy,
        run.batches,
        run.student.graphdef,
        eos_ids=end_tokens(run.student),
        pad_id=pad if isinstance(pad, int) else 0,
        seed=run.config.seed,
        base=run.base,
        vocabulary=usable_vocabulary(*filter(None, (run.student, run.teacher))),
    )
