"""What has been measured so far: one JSON line a process."""

import json
import os
import platform
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cases import Batch
from benchmarks.flops import step_operations
from benchmarks.suite import Case, Contender


class Row(NamedTuple):
    """A contender on a case, all rounds together.

    Attributes:
        seconds: median of the timed steps; with several batches, the mean over batches of each
            one's median.
        measured: timed steps.
        peak_gib: memory of the process at its peak, the largest of all rounds.
        operations: floor of a step, the mean over batches.
        response_tokens: of a step, the mean over batches.
    """

    seconds: float
    measured: int
    peak_gib: float
    operations: float
    response_tokens: float


def _operations(batch: Batch, contender: Contender) -> float:
    return 0.0 if contender.method is None else step_operations(batch, contender.method)


class Results:
    """A file of measurements that grows."""

    def __init__(self, file: Path):
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self._records: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def has(self, case: str, contender: str, number: int) -> bool:
        """Whether this round of a contender has been measured."""
        key = (case, contender, number)
        return any((r["case"], r["contender"], r["round"]) == key for r in self._records)

    def add(
        self,
        case: Case,
        contender: Contender,
        number: int,
        measured: dict[str, Any],
        batches: list[Batch],
    ) -> float:
        """Append a worker's record; return its median seconds."""
        record = {
            "case": case.name,
            "case_title": case.title,
            "contender": contender.name,
            "round": number,
            "operations": [_operations(batch, contender) for batch in batches],
            "response_tokens": [batch.response_tokens for batch in batches],
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            **measured,
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as file:
            file.write(json.dumps(record) + "\n")
        self._records.append(record)
        return statistics.median(seconds for _, seconds in measured["seconds"])

    def cases(self) -> Iterator[tuple[str, str]]:
        """Name and title of each case, in the order in which they were measured."""
        yield from {r["case"]: r["case_title"] for r in self._records}.items()

    def row(self, case: str, contender: str) -> Row | None:
        """What is known of a contender on a case."""
        found = [r for r in self._records if (r["case"], r["contender"]) == (case, contender)]
        if not found:
            return None
        steps = [tuple(step) for record in found for step in record["seconds"]]
        batches = range(len(found[0]["operations"]))
        medians = [statistics.median(s for which, s in steps if which == b) for b in batches]
        return Row(
            seconds=statistics.fmean(medians),
            measured=len(steps),
            peak_gib=max(record["peak_gib"] for record in found),
            operations=statistics.fmean(found[0]["operations"]),
            response_tokens=statistics.fmean(found[0]["response_tokens"]),
        )
