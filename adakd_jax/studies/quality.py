"""Trains and measures the grid, run by run, each part picking up where it was stopped."""

import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from rich.text import Text

from adakd_jax.config.provenance import OtherRunError, check_same_run, write_provenance
from adakd_jax.config.run import RunConfig
from adakd_jax.config.study import StudyConfig
from adakd_jax.console import Console
from adakd_jax.eval.suite import Evaluation
from adakd_jax.studies.first import check_first, train_first
from adakd_jax.studies.metrics import METRICS
from adakd_jax.studies.plan import PlannedRun, first_run
from adakd_jax.studies.report import write_report
from adakd_jax.studies.results import (
    RunResult,
    check_data,
    check_suites,
    read_result,
    result_of,
    write_result,
)
from adakd_jax.studies.shared import Shared
from adakd_jax.training.base import base_checksum
from adakd_jax.training.checkpoint import FOLDER
from adakd_jax.training.describe import tell, write_story
from adakd_jax.training.display import duration
from adakd_jax.training.inputs import Inputs, file_inputs
from adakd_jax.training.interrupt import terminated
from adakd_jax.training.loop import TrainingDivergedError
from adakd_jax.training.run import train
from adakd_jax.training.saved_student import describe_student
from adakd_jax.user_path import user_path

UNTRAINED, STARTING = "untrained student", "starting student"
_UNTRAINED_FILE = "untrained.json"
_UNTRAINED_SETTINGS = ("data.", "teacher.", "student.", "evaluation.")


def run_quality(
    study: StudyConfig, runs: Sequence[PlannedRun], argv: Sequence[str], console: Console
) -> None:
    """Train and measure what is not finished yet, and report after every run; one that diverges
    has no result, and the others go on.

    Leaves in `study.output`: runs/METHOD/seedN/{config.yaml, metrics.jsonl, result.json},
    untrained.json, report.md, results.csv, methods.csv, metrics.png and curves.png; first/ if all
    start from a run of their own, suites.csv if there are suites.

    Args:
        study: what is compared.
        runs: its grid, from `plan`.
        argv: the exact command, for the record.
        console: where to show progress.

    Raises:
        SystemExit: 0 after SIGTERM or Ctrl-C, once the state is saved.
        OtherRunError: the folder holds runs with other settings, or of other rows or models.
        OtherInputsError: a run was begun with other rows or models.
    """
    first = first_run(study)
    check_first(first)
    found = [(run, read_result(run.config.run_dir, run.config)) for run in runs]
    reference = next(run for run in runs if run.method == study.baseline)
    untrained = read_result(
        study.output, reference.config, _UNTRAINED_FILE, matters=_UNTRAINED_SETTINGS
    )
    waiting = [run for run, result in found if result is None]
    _check_started(waiting)
    finished = [result for _, result in found if result is not None]
    check_suites([*finished, *([untrained] if untrained else [])], study.suites)
    console.print(f"{len(finished)} of {len(runs)} runs are finished")
    write_provenance(study.output, study, argv, map(str, jax.devices()))
    signal.signal(signal.SIGTERM, terminated)
    written = None
    if waiting or untrained is None:
        train_first(first, argv, console)
        shared = Shared(reference.config, console, study.suites, study.suite_data)
        check_data([*finished, *([untrained] if untrained else [])], shared.data)
        for run in waiting:
            shared.batches(run.config)  # refused before any is trained
        untrained = untrained or _measure_untrained(study, reference, shared, console)
        for result in _finish_all(study, waiting, shared, argv, console):
            finished.append(result)
            written = write_report(study, runs, finished, untrained, argv)
    written = written or write_report(study, runs, finished, untrained, argv)
    console.print("written  " + ", ".join(map(str, written)), soft_wrap=True)


def _check_started(waiting: Sequence[PlannedRun]) -> None:
    """Refuses to continue a run that was begun with other settings."""
    for run in waiting:
        folder = run.config.run_dir
        try:
            check_same_run(folder, run.config)
        except OtherRunError as error:
            raise OtherRunError(
                f"{error}\nin a study: or another --output; or remove {folder} to start it again"
            ) from None


def _measure_untrained(
    study: StudyConfig, reference: PlannedRun, shared: Shared, console: Console
) -> RunResult:
    began = time.perf_counter()
    params = shared.student(reference.config).params
    evaluation, suites = _evaluate(reference.config, params, shared, console)
    seconds = time.perf_counter() - began
    run = reference._replace(method=UNTRAINED if study.first is None else STARTING)
    result = result_of(run, evaluation, shared.data, seconds, suites=suites, trained=False)
    write_result(study.output, result, _UNTRAINED_FILE)
    console.print(_line(result), soft_wrap=True)
    return result


def _finish_all(
    study: StudyConfig,
    waiting: Sequence[PlannedRun],
    shared: Shared,
    argv: Sequence[str],
    console: Console,
) -> Iterator[RunResult]:
    """Every result as it is there, with a line on it and on the time left."""
    began = time.perf_counter()
    for number, run in enumerate(waiting, start=1):
        console.rule(f"{run.method}, seed {run.seed}: run {number} of {len(waiting)}")
        try:
            result = _finish(study, run, shared, argv, console)
        except TrainingDivergedError as error:  # the others still compare
            console.print(Text("no result:", "bold red"), str(error))
            continue
        left = len(waiting) - number
        estimate = duration((time.perf_counter() - began) / number * left)
        console.print(f"{_line(result)}; about {estimate} for {left} more", soft_wrap=True)
        yield result


def _finish(
    study: StudyConfig,
    planned: PlannedRun,
    shared: Shared,
    argv: Sequence[str],
    console: Console,
) -> RunResult:
    """Train to the end, measure, and leave the result."""
    config = planned.config
    inputs = Inputs(config, console)
    inputs.check(file_inputs(config) | shared.inputs)
    run = shared.trainable(config)
    devices = map(str, jax.devices())
    write_provenance(config.run_dir, config, argv, devices, inputs.changed)
    inputs.write()
    if study.keep_checkpoints:
        describe_student(config.run_dir, run.student, base_checksum(run.base))
        write_story(config.run_dir, tell(run))
    state = train(run, shared.held_out, console, shared.compiled_step)
    began = time.perf_counter()
    evaluation, suites = _evaluate(config, run.evaluated(state), shared, console)
    seconds = time.perf_counter() - began
    result = result_of(planned, evaluation, shared.data, seconds, suites=suites)
    write_result(config.run_dir, result)
    if not study.keep_checkpoints:
        (user_path(config.run_dir) / FOLDER).rmtree()
    return result


def _evaluate(
    config: RunConfig, params: Any, shared: Shared, console: Console
) -> tuple[Evaluation, dict[str, Evaluation]]:
    """A student on the held-out rows, and on every suite."""
    held_out = shared.evaluate(config, params, console)
    return held_out, {
        name: shared.evaluate(config, params, console, name) for name in shared.suites
    }


def _line(result: RunResult) -> str:
    """A run in one line."""
    shown = [
        f"{metric.title} {metric.shown(result.metrics[metric.name])}"
        for metric in METRICS
        if metric.name in result.metrics
    ]
    times = f"evaluated in {duration(result.evaluation_seconds)}"
    if "seconds" in result.training:
        times = f"trained in {duration(result.training['seconds'])}, {times}"
    seed = "" if result.method in (UNTRAINED, STARTING) else f", seed {result.seed}"
    return f"{result.method}{seed}  {'  '.join(shown)}  ({times})"
