"""The whole job: prepare, measure, train, measure again, export. Every part picks up where it was
stopped.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from adakd_jax.config import RunConfig
from adakd_jax.config.provenance import check_same_run, check_writable, write_provenance
from adakd_jax.config.remarks import remarks
from adakd_jax.console import Console
from adakd_jax.eval.suite import HeldOut
from adakd_jax.eval.table import metrics_table
from adakd_jax.hf.folder import refuse_to_overwrite
from adakd_jax.processes import any_of, first_says, is_first, wait_for_all
from adakd_jax.sharding import entered, place_batch
from adakd_jax.training.base import base_checksum
from adakd_jax.training.chat import with_earlier_date
from adakd_jax.training.checkpoint import Checkpoints, checkpoints_folder, has_checkpoints
from adakd_jax.training.describe import tell, write_story
from adakd_jax.training.export import export_student
from adakd_jax.training.inputs import Inputs
from adakd_jax.training.integrity import set_damaged_aside
from adakd_jax.training.loop import CompiledSteps, Schedule, fit
from adakd_jax.training.measure import (
    after_training,
    before_training,
    held_out_of,
    measured,
    show_answers,
)
from adakd_jax.training.prepare import Run, prepare
from adakd_jax.training.records import MetricsLog, NoLog
from adakd_jax.training.saved_student import describe_student
from adakd_jax.training.start import responses_of, start
from adakd_jax.training.state import TrainState
from adakd_jax.training.step import StepParts, TrainStep, make_train_step
from adakd_jax.training.tokens import TokenSnapshots, snapshots_of


def run_job(config: RunConfig, argv: Sequence[str], console: Console | None = None) -> None:
    """Distil as configured, or go on with what an earlier start of the same run left.

    Leaves in `run_dir`: config.yaml, run.json, inputs.json, metrics.jsonl, TensorBoard files,
    checkpoints, evaluation/*.json, tokens/*.json and (unless `export.path` says otherwise) export/.

    Args:
        config: all settings.
        argv: the exact command, for the record.
        console: where to show progress.

    Raises:
        SystemExit: 0 after SIGTERM or Ctrl-C, once the state is saved.
        OtherRunError: `run_dir` holds a run with other settings.
        OtherInputsError: it holds one of other rows, weights or tokenizer.
        OtherBaseError: it holds adapters of other weights.
        DamagedCheckpointError: all its checkpoints are damaged.
        SaveError, OSError: it cannot be written to.
        TrainingDivergedError: too many non-finite updates in a row.
    """
    console = console or default_console()
    config = with_earlier_date(config)
    for remark in remarks(config):
        console.print(f"note     {remark}", soft_wrap=True)
    check_same_run(config.run_dir, config)
    refuse_to_overwrite(_export_path(config))
    if is_first():
        check_writable(config.run_dir)
    inputs = Inputs(config, console)
    resumed = first_says(has_checkpoints(config.run_dir))
    run = prepare(config, console, resumed=resumed, inputs=inputs)
    checksum = base_checksum(run.base)
    if is_first():
        accepted = config.checkpoint.accept_changed_inputs
        describe_student(config.run_dir, run.student, checksum, another=accepted)
        devices = map(str, jax.devices())
        write_provenance(config.run_dir, run.config, argv, devices, inputs.changed)
        inputs.write()
        write_story(config.run_dir, tell(run))
    held_out = held_out_of(run)
    with entered(run.mesh):
        results = before_training(run, held_out, console)
        state = train(run, held_out, console, snapshots=snapshots_of(run, held_out))
        results |= after_training(run, run.evaluated(state), held_out, console)
        _export(run, state, results, console)


def default_console() -> Console:
    """Where progress is shown: the terminal or a log; nowhere but on the first process."""
    return Console(quiet=not is_first())


StepFor = Callable[[Run, StepParts, TrainState, Console], TrainStep]


def compiled_step(run: Run, parts: StepParts, state: TrainState, console: Console) -> CompiledSteps:
    """The train step of a run, compiled for its shapes, the largest first: if one has no room, that
    is seen before the first step.
    """
    state = state._replace(replay=None)
    steps = CompiledSteps(make_train_step(parts, run.shardings(state)), console)
    for step in run.batches.steps_of_shapes:
        batch = place_batch(run.batches.batch(step), run.mesh)
        steps.compile(state, run.teaching_params, batch, run.base)
    return steps


def train(
    run: Run,
    held_out: HeldOut | None,
    console: Console,
    step_for: StepFor = compiled_step,
    snapshots: TokenSnapshots | None = None,
) -> TrainState:
    """Train from the newest checkpoint, if there is one, to the end.

    Args:
        run: all that is read; the student's weights are donated to the first step.
        held_out: what is measured on the way.
        console: where progress is shown.
        step_for: gives the compiled train step, e.g. one that an earlier run has compiled.
        snapshots: records tokens on the way.

    Returns:
        the last state, saved.

    Raises:
        SystemExit: 0 after SIGTERM or Ctrl-C, once the state is saved.
        TrainingDivergedError: too many non-finite updates in a row.
        DamagedCheckpointError: there are checkpoints, but none can be gone on from.
        SaveError: a state cannot be written.
    """
    parts = run.parts()
    folder = checkpoints_folder(run.config.run_dir)
    if is_first():
        set_damaged_aside(folder, lambda line: console.print(line, soft_wrap=True))
    wait_for_all("the checkpoints are checked")
    with Checkpoints(run.config.run_dir, run.config.checkpoint) as checkpoints:
        state = start(run, parts, checkpoints, console)
        if int(state.step) >= parts.total_steps:
            return state
        step = step_for(run, parts, state, console)
        state, stopped = _fit(run, step, state, checkpoints, held_out, snapshots, console)
    if stopped:
        console.print(
            f"{stopped}: saved after step {int(state.step)} of {parts.total_steps}; "
            "the same command continues",
            soft_wrap=True,
        )
        raise SystemExit(0)
    return state


def _fit(
    run: Run,
    step: TrainStep,
    state: TrainState,
    checkpoints: Checkpoints,
    held_out: HeldOut | None,
    snapshots: TokenSnapshots | None,
    console: Console,
) -> tuple[TrainState, str | None]:
    config, start = run.config, int(state.step)

    def measure(state: TrainState) -> dict[str, float]:
        params = run.evaluated(state)
        result = measured(run, held_out, params, console, answer=False) if held_out else {}
        return {name: float(x) for name, x in result.items() if isinstance(x, int | float)}

    def watch(state: TrainState) -> None:
        if snapshots is not None and int(state.step) in snapshots.steps:
            snapshots.take(state, run.evaluated(state))

    watch(state)  # an earlier start may have been stopped before it could
    log_of = MetricsLog if is_first() else NoLog
    with log_of(config.run_dir, config.logging, start_step=start) as log:
        return fit(
            step,
            state,
            run.teaching_params,
            run.batches,
            schedule=_schedule(run, snapshots),
            checkpoints=checkpoints,
            log=log,
            console=console,
            base=run.base,
            held_out=measure if held_out else None,
            watch=watch,
            place=functools.partial(place_batch, mesh=run.mesh),
            any_of=any_of(run.mesh),
            responses=responses_of(run),
        )


def _schedule(run: Run, snapshots: TokenSnapshots | None) -> Schedule:
    config = run.config
    return Schedule(
        total_steps=run.batches.total_steps,
        save_every=config.checkpoint.every_steps,
        log_every=config.logging.every_steps,
        evaluate_every=config.evaluation.every_steps,
        max_bad_steps=config.training.max_bad_steps,
        watch_at=snapshots.steps if snapshots is not None else frozenset(),
    )


def _export(run: Run, state: TrainState, results: dict[str, Any], console: Console) -> None:
    """Write the Hugging Face folder and say what the run achieved and how to load it."""
    scores = {name: results[name] for name in ("before", "after") if name in results}
    path, how_to_load = export_student(
        run.config,
        dataclasses.replace(run.student, params=run.evaluated(state)),
        _export_path(run.config),
        step=int(state.step),
        measured=scores,
        form=run.config.export.lora,
        max_shard_size=run.config.export.max_shard_size,
    )
    if scores:
        console.print(metrics_table(scores, title="held-out rows"))
    show_answers(results, console)
    console.print(f"exported {path}")
    console.print(f"load it: {how_to_load}", soft_wrap=True)


def _export_path(config: RunConfig) -> str:
    return config.export.path or f"{config.run_dir.rstrip('/')}/export"
