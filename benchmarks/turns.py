"""Contenders that take turns: each in a process of its own that lives as long as the comparison.

    python -m benchmarks.turns MODULE KIND BATCHES SETTING

A process makes its step and warms up; then, for every number of steps that it reads from its
standard input, it answers with a line of JSON. So slow spells of the machine hit all alike, and
no library meets the GPU libraries of another.
"""

import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cases import Setting, load_batches

ROOT = Path(__file__).parents[1]
MARK = "turn "  # what libraries print is no answer


class Entry(NamedTuple):
    """A contender: file of benchmarks/contenders, what it is to do, batches, setting."""

    title: str
    module: str
    kind: str
    batches: Path
    setting: Setting


class ContenderError(Exception):
    """A contender ended; says with what."""


class Contender:
    """A contender's process."""

    def __init__(self, entry: Entry, environment: Mapping[str, str]):
        setting = json.dumps(entry.setting._asdict())
        command = [sys.executable, "-m", "benchmarks.turns", entry.module, entry.kind]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(
            [*command, str(entry.batches), setting], cwd=ROOT, env={**os.environ, **environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip

    def ready(self) -> dict[str, Any]:
        """Wait until it has warmed up on every batch: `warm_up` in seconds, `losses`."""
        return self._answer()

    def turn(self, steps: int) -> dict[str, Any]:
        """Time some steps: `seconds` by batch and step, `peak_gib`, `losses`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what it ended with is said below
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        """End the process and wait for it: what it held on the device is free then."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        self._process.wait()
        self._errors.seek(0)
        said = [line for line in self._errors.read().splitlines() if line.strip()]
        raise ContenderError(said[-1] if said else f"exit code {self._process.returncode}")


def take_turns(
    entries: Sequence[Entry], steps: int, rounds: int, environment: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Measure contenders in turns.

    Args:
        entries: who takes part; one that fails does so alone.
        steps: timed steps of a turn, over its batches in turn.
        rounds: turns of each.
        environment: variables of all processes.

    Returns:
        by title: "seconds" of a step (the mean over batches of each one's median), the same as
        "seconds_by_round", "warm_up", "peak_gib"; or "error".
    """
    # They warm up at the same time: most of it is compiling.
    living = {entry.title: Contender(entry, environment) for entry in entries}
    found: dict[str, dict[str, Any]] = {}
    answers: dict[str, list[dict[str, Any]]] = {entry.title: [] for entry in entries}
    try:
        for number in range(1 + rounds):
            for title, contender in list(living.items()):
                try:
                    answers[title].append(contender.turn(steps) if number else contender.ready())
                except ContenderError as error:
                    living.pop(title).end()
                    found[title] = {"error": str(error)}
        for title in living:
            made, *turns = answers[title]
            found[title] = _summary(turns) | {"warm_up": made["warm_up"]}
    finally:
        for contender in living.values():
            contender.end()
    return found


def _summary(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    taken = [tuple(step) for turn in turns for step in turn["seconds"]]
    return {
        "seconds": mean_of_medians(taken),
        "seconds_by_round": [mean_of_medians([tuple(s) for s in t["seconds"]]) for t in turns],
        "peak_gib": turns[-1]["peak_gib"],
    }


def mean_of_medians(taken: Sequence[tuple[int, float]]) -> float:
    """The mean over batches of the median seconds of each."""
    batches = sorted({which for which, _ in taken})
    return statistics.fmean(
        statistics.median(seconds for which, seconds in taken if which == batch)
        for batch in batches
    )


def main() -> None:
    """The process of a contender."""
    name, kind, file, setting = sys.argv[1:]
    batches = load_batches(Path(file))
    module = importlib.import_module(f"benchmarks.contenders.{name}")
    began = time.perf_counter()
    step = module.make_step(kind, batches, Setting(**json.loads(setting)))
    losses = [step(batch) for batch in batches]
    _say({"warm_up": time.perf_counter() - began, "losses": losses})
    rest, peak_bytes = (getattr(module, name, lambda: None) for name in ("rest", "peak_bytes"))
    for line in sys.stdin:
        seconds, losses = [], []
        for index in range(int(line)):
            which = index % len(batches)
            began = time.perf_counter()
            losses.append(step(batches[which]))
            seconds.append((which, time.perf_counter() - began))
        peak = peak_bytes()
        rest()
        _say(
            {
                "seconds": seconds,
                "losses": losses,
                "peak_gib": None if peak is None else peak / 2**30,
            }
        )


def _say(answer: dict[str, Any]) -> None:
    print(MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
