"""The train loop: all that is not arithmetic. Feeds batches, records metrics, saves, evaluates and
stops.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from adakd_jax.axes import TokenBatch
from adakd_jax.console import Console
from adakd_jax.data.loader import StepInfo, TrainingBatches
from adakd_jax.policies import DatasetResponses
from adakd_jax.training.checkpoint import Checkpoints
from adakd_jax.training.display import TrainingDisplay, duration
from adakd_jax.training.interrupt import StopRequest
from adakd_jax.training.memory import peak_memory
from adakd_jax.training.records import MetricsLog, NoLog
from adakd_jax.training.state import TrainState
from adakd_jax.training.step import Metrics, TrainStep

ROWS_NAMED = 20
HeldOut = Callable[[TrainState], dict[str, float]]


class TrainingDivergedError(RuntimeError):
    """Too many updates in a row had a non-finite loss or gradient."""


class Schedule(NamedTuple):
    """How often the loop does what, in optimizer steps; `watch_at` are the steps to watch after."""

    total_steps: int
    save_every: int
    log_every: int
    evaluate_every: int | None
    max_bad_steps: int
    watch_at: frozenset[int] = frozenset()


class Recorder:
    """Reads the metrics of a step only when the next one is under way, so that the device never
    waits for the host.
    """

    def __init__(self, log: MetricsLog | NoLog, display: TrainingDisplay, schedule: Schedule):
        self._log, self._display, self._schedule = log, display, schedule
        self._pending: tuple[int, Mapping[str, Any], StepInfo] | None = None
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave what happened since the last record (an evaluation, a save) out of the next step's
        time.
        """
        self._clock = time.perf_counter()

    def push(self, step: int, metrics: Mapping[str, Any], info: StepInfo) -> None:
        """Take the metrics of `step` (1 is the first) and record those of the step before."""
        self.flush()
        self._pending = (step, metrics, info)

    def flush(self) -> None:
        """Wait for the pending step and record it.

        Raises:
            TrainingDivergedError: after `max_bad_steps` non-finite updates in a row; names step and
            batch.
        """
        if self._pending is None:
            return
        (step, metrics, info), self._pending = self._pending, None
        values = {key: float(value) for key, value in jax.device_get(metrics).items()}
        now = time.perf_counter()
        values["seconds"], self._clock = now - self._clock, now
        if "generating_seconds" in values:
            values["generating_share"] = values["generating_seconds"] / values["seconds"]
        values["tokens_per_second"] = values["tokens"] / values["seconds"]
        values["response_tokens_per_second"] = values["response_tokens"] / values["seconds"]
        values |= peak_memory()
        self._display.update(step, values)
        if step % self._schedule.log_every == 0 or not values["accepted"]:
            self._log.write(step, values)
        if values["bad_streak"] >= self._schedule.max_bad_steps:
            raise TrainingDivergedError(
                f"{values['bad_streak']:.0f} updates in a row had a non-finite loss or gradient, "
                f"the last at step {step} (loss {values['loss']}, gradient norm "
                f"{values['grad_norm']}; epoch {info.epoch}, training rows {_listed(info.rows)}). "
                "Weights are those of the last good step. "
                "Try a lower optimizer.learning_rate, or look at these rows."
            )


class CompiledSteps:
    """The train step, compiled ahead of its first call for each shape of its batch.

    Nothing else ever recompiles. The shapes are few, see `TrainingBatches`.
    """

    def __init__(self, step: TrainStep, console: Console):
        self._step, self._console = step, console
        self._compiled: dict[tuple[int, ...], jax.stages.Compiled] = {}

    def __call__(
        self, state: TrainState, teacher_params: Any, batch: TokenBatch, base: Any = None
    ) -> tuple[TrainState, Metrics]:
        """Take a step."""
        self.compile(state, teacher_params, batch, base)
        return self._compiled[batch.tokens.shape](state, teacher_params, batch, base)

    @property
    def compiled(self) -> list[jax.stages.Compiled]:
        """The programs so far, for their memory; the first is that of the largest batch."""
        return list(self._compiled.values())

    def compile(
        self, state: TrainState, teacher_params: Any, batch: TokenBatch, base: Any = None
    ) -> None:
        """Compile for the shape of a batch, unless that was done."""
        shape = batch.tokens.shape
        if shape in self._compiled:
            return
        began = time.perf_counter()
        if not self._console.is_terminal:  # where no status is shown
            self._console.print("compiling the train step")
        with self._console.status("compiling the train step"):
            self._compiled[shape] = self._step.lower(state, teacher_params, batch, base).compile()
        which = f" for {shape[0]} × {shape[1]} rows" if len(self._compiled) > 1 else ""
        took = duration(time.perf_counter() - began)
        self._console.print(f"train step compiled{which} in {took}")


@dataclass(frozen=True)
class BetweenSteps:
    """Evaluates, watches and saves after the steps that the schedule says."""

    schedule: Schedule
    recorder: Recorder
    display: TrainingDisplay
    log: MetricsLog | NoLog
    checkpoints: Checkpoints
    responses: DatasetResponses
    held_out: HeldOut | None
    watch: Callable[[TrainState], None] | None

    def before_first(self, state: TrainState, start: int) -> TrainState:
        """Evaluate the untrained student for responses that later evaluations are compared by."""
        awaited = start == 0 and self.responses.awaits_evaluation(state.replay)
        if self.held_out is None or not awaited:
            return state
        scores = self.held_out(state)
        self.display.note(_held_out_line(0, scores))
        self.recorder.restart_clock()
        return state._replace(replay=self.responses.evaluated(state.replay, scores))

    def __call__(self, state: TrainState, done: int, last: bool) -> TrainState:
        """What is due after `done` steps; a last state, and one that was evaluated, is saved."""
        every = self.schedule.evaluate_every
        held_out = self.held_out if every and done % every == 0 else None
        watch = self.watch if done in self.schedule.watch_at else None
        saves = last or held_out is not None or done % self.schedule.save_every == 0
        if watch is None and not saves:
            return state
        self.recorder.flush()
        rank = None
        if held_out is not None:
            scores = held_out(state)
            state = state._replace(replay=self.responses.evaluated(state.replay, scores))
            self.log.write(done, scores, kind="eval")
            self.display.note(_held_out_line(done, scores))
            rank = scores.get("reverse_kl", scores.get("nll"))
        if watch is not None:
            watch(state)
        if saves:
            self.checkpoints.save(state, held_out_loss=rank)
        if not last:
            self.recorder.restart_clock()
        return state


def fit(
    step_fn: TrainStep,
    state: TrainState,
    teacher_params: Any,
    batches: TrainingBatches,
    *,
    schedule: Schedule,
    checkpoints: Checkpoints,
    log: MetricsLog | NoLog,
    console: Console,
    base: Any = None,
    held_out: HeldOut | None = None,
    watch: Callable[[TrainState], None] | None = None,
    place: Callable[[TokenBatch], TokenBatch] = lambda batch: batch,
    any_of: Callable[[bool], bool] = lambda wish: wish,
    responses: DatasetResponses | None = None,
) -> tuple[TrainState, str | None]:
    """Train from `state.step` to the last step.

    Args:
        step_fn: from `make_train_step`, compiled or not.
        state: where to start; donated to the steps.
        teacher_params: never changed.
        batches: one batch for each step, a pure function of the step.
        schedule: when to save, record and evaluate.
        checkpoints: where states are saved; the last one is saved in any case.
        log: where metrics go.
        console: where progress is shown.
        base: the student's frozen weights, where the state holds its adapters; never changed.
        place: moves this process's rows to the devices.
        responses: where those of each step come from; by default the batches have them.
        any_of: from `processes.any_of`, so that a signal to one process stops all after one step.
        held_out: measures a state on held-out rows; its `reverse_kl` (without
            a teacher: `nll`) ranks checkpoints.
        watch: looks at the states after the steps `schedule.watch_at`, before they are saved.

    Returns:
        the last state, saved, and the name of the signal that stopped the run early, or None.

    Raises:
        TrainingDivergedError: see `Recorder.flush`.
    """
    responses, start = responses or DatasetResponses(), int(state.step)
    if start >= schedule.total_steps:
        return state, None
    display, stopped = TrainingDisplay(console, schedule.total_steps, start), False
    with StopRequest() as stop, display:
        recorder = Recorder(log, display, schedule)
        between = BetweenSteps(
            schedule, recorder, display, log, checkpoints, responses, held_out, watch
        )
        state = between.before_first(state, start)
        for index, batch, info in batches.iterate(start):
            if responses.ask_student:  # which waits for the step before: not this one's time
                recorder.flush()
            taken = responses.of_step(state.params, state.replay, index, batch, info)
            without = state._replace(replay=None)
            state, metrics = step_fn(without, teacher_params, place(taken.batch), base)
            state, done = state._replace(replay=taken.replay), index + 1
            recorder.push(done, metrics | taken.metrics, info)
            stopped = any_of(stop.name is not None)
            last = done == schedule.total_steps or stopped
            state = between(state, done, last)
            if last:
                break
        checkpoints.wait()
        stopped = stopped or any_of(stop.name is not None)
    return state, (stop.name or "signal to another process") if stopped else None


def _listed(rows: np.ndarray) -> str:
    more = " …" if len(rows) > ROWS_NAMED else ""
    return ", ".join(map(str, rows[:ROWS_NAMED])) + more


def _held_out_line(step: int, scores: dict[str, float]) -> str:
    values = "  ".join(f"{key} {value:.4f}" for key, value in scores.items())
    return f"held out after step {step}: {values}"
