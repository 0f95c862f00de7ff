"""What stands beside every table: the command, the machine, the versions, the settings."""

import os
import platform
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from adakd_jax.config.models import StudentCheckpoint, StudentLayers, StudentPruned
from adakd_jax.config.provenance import read_starts
from adakd_jax.config.run import RunConfig
from adakd_jax.config.schema import written
from adakd_jax.config.study import StudyConfig
from adakd_jax.studies.plan import PlannedRun

_VERSIONS = ("adakd_jax", "jax", "flax", "optax", "transformers")
# An absolute folder in front of a file name; gs:// and owner/name are none.
_FOLDER = re.compile(r"(?<![\w.:/])[~/][^\s,]*/")


def shown_command(argv: Sequence[str]) -> str:
    """The command as one types it; files elsewhere on this machine without their folder."""
    return shlex.join(_FOLDER.sub("", argument) for argument in argv)


def machine() -> str:
    """Processor, cores, memory, and accelerators if there are any."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    devices = jax.devices()
    accelerators = "" if devices[0].platform == "cpu" else f"; {len(devices)} × {devices[0]}"
    return f"{os.cpu_count()} cores of {name}, {gib:.0f} GiB{accelerators}"


def origin_lines(
    study: StudyConfig, runs: Sequence[PlannedRun], argv: Sequence[str]
) -> Iterator[str]:
    """Markdown: the title, the command, and a list of where the numbers come from.

    Args:
        study: what was asked for.
        runs: its grid.
        argv: the exact command.
    """
    config = next(run.config for run in runs if run.method == study.baseline)
    start = read_starts(study.output)[-1]
    versions = ", ".join(f"{name} {start['packages'][name]}" for name in _VERSIONS)
    git = start["git"]
    if git is not None:
        changed = " with changes" if git["dirty"] else ""
        versions += f"; revision {git['revision'][:10]}{changed}"
    yield f"# {study.output.rstrip('/').rsplit('/', 1)[-1]}\n"
    yield f"    {shown_command(argv)}\n"
    yield f"- Machine: {machine()}"
    yield f"- Versions: {versions}"
    yield f"- All runs: {_settings(config)}"
    if study.first is not None:
        listed = ", ".join(f"{key} {written(value)}" for key, value in _leaves(study.first))
        yield f"- They start from the student of one run that was trained before: {listed}"


def method_lines(study: StudyConfig) -> Iterator[str]:
    """Markdown: what makes each method, as settings over those of all runs."""
    yield "| method | settings |"
    yield "|---|---|"
    for name, changes in study.methods.items():
        listed = ", ".join(f"{key} {written(value)}" for key, value in _leaves(changes))
        yield f"| {name} | {listed or '–'} |"


def _settings(config: RunConfig) -> str:
    """What all runs have in common, in a few words."""
    training, optimizer, student = config.training, config.optimizer, config.student
    teacher = "" if config.teacher is None else config.teacher.path.rsplit("/", 1)[-1]
    start = "random weights"
    if isinstance(student, StudentLayers):
        start = f"its layers {written(student.layers)}"
    elif isinstance(student, StudentPruned):
        sizes = ("parameters", "layers", "ffw", "heads", "width", "experts")
        given = {name: getattr(student, name) for name in sizes}
        listed = ", ".join(f"{name} {n:,}" for name, n in given.items() if n is not None)
        start = f"what matters most in it ({listed})"
    elif isinstance(student, StudentCheckpoint):
        start = student.path.rsplit("/", 1)[-1]
    length = f"{training.steps} steps" if training.steps else f"{training.epochs} epochs"
    rows = training.batch_rows
    size = f"{rows} rows" if rows else f"{training.batch_examples} examples"
    return (
        f"teacher {teacher}; student from {start}; {length} of {size} "
        f"of at most {config.data.max_length} tokens; peak learning rate "
        f"{optimizer.learning_rate:g}, {optimizer.schedule}, {optimizer.warmup_steps} warm-up "
        f"steps; template {config.data.template}"
    )


def _leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
