"""Seconds and memory of a training step of every method, on the same batches."""

import json
import signal
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from adakd_jax.axes import TokenBatch
from adakd_jax.config.provenance import OtherRunError, write_provenance
from adakd_jax.config.study import StudyConfig
from adakd_jax.console import Console
from adakd_jax.studies.overhead_report import Overheads, write_overhead_report
from adakd_jax.studies.plan import PlannedRun
from adakd_jax.studies.results import check_settings
from adakd_jax.studies.shared import Shared
from adakd_jax.training.interrupt import terminated
from adakd_jax.training.loop import CompiledSteps
from adakd_jax.training.prepare import Run
from adakd_jax.training.start import first_state
from adakd_jax.training.step import StepParts
from adakd_jax.user_path import user_path
from adakd_jax.whole_file import write_whole

FILE = "overhead.json"
_SETTINGS = ("seed", "data.", "teacher.", "student.", "distill.", "optimizer.", "training.")


class Contender(NamedTuple):
    """A method with its compiled step."""

    run: Run
    parts: StepParts
    step: CompiledSteps


def run_overhead(
    study: StudyConfig, runs: Sequence[PlannedRun], argv: Sequence[str], console: Console
) -> None:
    """Measure the rounds that are still missing, and report after every round.

    Memory is what the compiler reports, so that one process measures all methods. Leaves in
    `study.output`: overhead.json, report.md, methods.csv and overhead.png.

    Args:
        study: what is compared.
        runs: its grid; the first seed of each method is measured.
        argv: the exact command, for the record.
        console: where to show progress.

    Raises:
        SystemExit: 0 after SIGTERM; complete rounds are kept.
        OtherRunError: the folder holds measurements with other settings.
    """
    planned = [run for run in runs if run.seed == study.seeds[0]]
    measured = _read(study, planned)
    write_provenance(study.output, study, argv, map(str, jax.devices()))
    signal.signal(signal.SIGTERM, terminated)
    if len(measured.rounds) < study.overhead.rounds:
        contenders = _compile(study, planned, console)
        memory = {name: _memory(contender.step) for name, contender in contenders.items()}
        batches = _batches(contenders[study.baseline].run, study.overhead.steps + 1)
        for number in range(len(measured.rounds), study.overhead.rounds):
            seconds = _round(contenders, batches, number)
            measured = Overheads(memory, [*measured.rounds, seconds])
            _write(study, planned, measured)
            listed = "  ".join(f"{name} {value:.3f} s" for name, value in seconds.items())
            console.print(
                f"round {number + 1} of {study.overhead.rounds}: {listed}", soft_wrap=True
            )
    written = write_overhead_report(study, planned, measured, argv)
    console.print("written  " + ", ".join(map(str, written)), soft_wrap=True)


def _compile(
    study: StudyConfig, planned: Sequence[PlannedRun], console: Console
) -> dict[str, Contender]:
    reference = next(run for run in planned if run.method == study.baseline)
    shared = Shared(reference.config, console)
    contenders = {}
    for method, _, config in planned:
        run = shared.run(config)
        parts = run.parts()
        state = first_state(run, parts)
        console.print(f"{method}: ", end="")
        contenders[method] = Contender(run, parts, shared.compiled_step(run, parts, state, console))
    return contenders


def _memory(step: CompiledSteps) -> dict[str, int]:
    """Bytes that the compiled step needs beside its arguments, and for them, at its largest."""
    analysis = step.compiled[0].memory_analysis()
    assert analysis is not None  # every backend we train on has one
    return {
        "temporaries": analysis.temp_size_in_bytes,
        "arguments": analysis.argument_size_in_bytes,
    }


def _batches(run: Run, count: int) -> list[TokenBatch]:
    return [run.batches.batch(index % run.batches.total_steps) for index in range(count)]


def _round(
    contenders: dict[str, Contender], batches: Sequence[TokenBatch], number: int
) -> dict[str, float]:
    """Seconds a step of every method, which take turns from another one in each round."""
    names = list(contenders)
    first = number % len(names)
    seconds = {name: _turn(contenders[name], batches) for name in names[first:] + names[:first]}
    return {name: seconds[name] for name in names}


def _turn(contender: Contender, batches: Sequence[TokenBatch]) -> float:
    """Seconds a step after the first one, from the start of training."""
    run, parts, step = contender
    # The student's own weights are shared; those of a state are given away.
    state = jax.tree.map(jnp.copy, first_state(run, parts))
    state, _ = step(state, run.teaching_params, batches[0], run.base)
    jax.block_until_ready(state)
    began = time.perf_counter()
    for batch in batches[1:]:
        state, _ = step(state, run.teaching_params, batch, run.base)
    jax.block_until_ready(state)
    return (time.perf_counter() - began) / (len(batches) - 1)


def _read(study: StudyConfig, planned: Sequence[PlannedRun]) -> Overheads:
    """What was measured before, if it was of the same methods."""
    file = user_path(study.output) / FILE
    if not file.exists():
        return Overheads({}, [])
    stored = json.loads(file.read_text(encoding="utf-8"))
    if list(stored["settings"]) != [run.method for run in planned]:
        raise OtherRunError(
            f"{file} is of other methods: {', '.join(stored['settings'])}; "
            f"valid: these; or another --output; or remove {file}"
        )
    for run in planned:
        check_settings(
            stored["settings"][run.method],
            run.config,
            what=f"{file}, {run.method}",
            remove=str(file),
            matters=_SETTINGS,
        )
    return Overheads(stored["memory"], stored["rounds"])


def _write(study: StudyConfig, planned: Sequence[PlannedRun], measured: Overheads) -> None:
    settings = {run.method: run.config.model_dump(mode="json") for run in planned}
    content = {"settings": settings, "memory": measured.memory, "rounds": measured.rounds}
    file = user_path(study.output) / FILE
    write_whole(file, json.dumps(content, indent=1, ensure_ascii=False))
