"""Runs a part in a process group of its own, which ends with the part's time."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping

from benchmarks.gpu.options import Options, Row
from benchmarks.gpu.run_part import ROW
from benchmarks.turns import ROOT


class PartRun:
    """A part that runs; `error` says, once the rows have ended, why there are no more."""

    def __init__(self, command: list[str], seconds: float, environment: Mapping[str, str]):
        self.error: str | None = None
        self._until = time.monotonic() + seconds
        self._seconds = seconds
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, text=True,
            stdout=subprocess.PIPE, stderr=self._said, start_new_session=True,
        )  # fmt: skip

    def rows(self) -> Iterator[Row]:
        """Its rows as they come. Nothing of the group lives on when they end."""
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=self._read, args=(lines,), daemon=True)
        reader.start()
        try:
            while (line := lines.get(timeout=max(0.0, self._until - time.monotonic()))) is not None:
                if line.startswith(ROW):
                    yield json.loads(line.removeprefix(ROW))
            self.error = self._why()
        except queue.Empty:
            self.error = f"stopped after {self._seconds:.0f} s, its time"
        finally:
            self._end(reader)

    def _read(self, lines: "queue.Queue[str | None]") -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            lines.put(line)
        lines.put(None)

    def _why(self) -> str | None:
        """None of a process that came to its end."""
        code = self._process.wait(timeout=60)
        if code == 0:
            return None
        self._said.seek(0)
        last = [line for line in self._said.read().splitlines() if line.strip()][-1:]
        return " ".join([f"exit code {code};", *last])[:500]

    def _end(self, reader: threading.Thread) -> None:
        # It may be gone already.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._said.close()


def run_part(
    name: str, options: Options, seconds: float, environment: Mapping[str, str]
) -> PartRun:
    """Start a part.

    Args:
        name: of the part.
        options: what it is told.
        seconds: it may take.
        environment: variables of its process.
    """
    given = options._asdict() | {"out": str(options.out.resolve())}
    given["rows"] = None if options.rows is None else str(options.rows.resolve())
    command = [sys.executable, "-m", "benchmarks.gpu.run_part", name, json.dumps(given)]
    if options.small:
        environment = {**environment, "JAX_PLATFORMS": "cpu"}
    return PartRun(command, seconds, environment)
