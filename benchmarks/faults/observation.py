"""What was promised of a fault, and what was seen."""

import re
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.faults.workplace import ROOT, Training, Workplace

SMALL_DISK = "faults-"  # how the folders begin on which small disks are mounted


class Observation(NamedTuple):
    """A fault, and what the training command made of it.

    Attributes:
        fault: what was done.
        how: by what means, where that is not obvious.
        promise: what should come of it.
        code: exit code of the command that met the fault.
        message: the line in which it says so.
        problem: how it broke its promise; None if it kept it.
    """

    fault: str
    how: str
    promise: str
    code: int | None
    message: str
    problem: str | None


class Case(NamedTuple):
    """A fault that can be made: its name on the command line, and the function that makes it."""

    name: str
    make: Callable[[Workplace], Observation]


def line_with(training: Training, *words: str) -> str:
    """The first line of the output that has all of these words, or an empty one."""
    lines = training.shown.splitlines()
    return next((line for line in lines if all(word in line for word in words)), "")


def refused(training: Training, *words: str) -> tuple[str, str | None]:
    """The line that refuses, and what is wrong with how a start ended: it should say `words` in a
    line, end with 2 and show no traceback from there on.
    """
    line = line_with(training, *words)
    shown = training.shown.partition(line)[2]
    problem: str | None = None
    if training.code != 2:
        problem = f"exit code {training.code}, not 2"
    elif not line:
        problem = f"no line with {', '.join(words)}"
    elif "Traceback" in shown:
        problem = "a traceback is shown"
    return line, problem


def first_of(*problems: str | None) -> str | None:
    """The first problem that there is."""
    return next((problem for problem in problems if problem), None)


def to_json(name: str, observation: Observation) -> dict[str, Any]:
    """For the file of results: without the folders of this machine, a small disk as DISK."""
    message = observation.message.replace(f"{ROOT}/", "")
    small = rf"{re.escape(tempfile.gettempdir())}/{SMALL_DISK}\w+"
    message = re.sub(small, "DISK", message)
    return {"name": name, **observation._asdict(), "message": message}
