"""Metrics on disk: `metrics.jsonl` always, TensorBoard by default, Weights & Biases if asked."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from etils import epath

from adakd_jax.config import LoggingConfig
from adakd_jax.user_path import user_path
from adakd_jax.whole_file import write_whole

FILE = "metrics.jsonl"


class MetricsLog:
    """Appends one record a step; after a restart, drops the records past the restored step."""

    def __init__(self, run_dir: str, config: LoggingConfig, *, start_step: int, name: str = ""):
        self._path = user_path(run_dir) / FILE
        kept = [r for r in read_records(run_dir) if r["step"] <= start_step]
        write_whole(self._path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = self._path.open("a")
        self._events = EventFile(run_dir, start_step) if config.tensorboard else None
        self._wandb = _wandb(config.wandb_project, run_dir, name) if config.wandb_project else None

    def write(self, step: int, values: Mapping[str, float], kind: str = "train") -> None:
        """Record `values` after `step` steps; `kind` is "train" or "eval". Non-finite values become
        null.

        Raises:
            OSError: a file cannot be written; names it.
        """
        clean = {k: v if math.isfinite(v) else None for k, v in values.items()}
        with _naming(self._path):
            self._file.write(json.dumps({"step": step, "kind": kind, **clean}) + "\n")
            self._file.flush()
        finite = {f"{kind}/{k}": v for k, v in clean.items() if v is not None}
        if self._events is not None:
            self._events.write(step, finite)
        if self._wandb is not None:
            self._wandb.log(finite, step=step)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Flush and close every sink; of what could not be written, `write` has told already."""
        with suppress(OSError) if isinstance(error, OSError) else nullcontext():
            self._file.close()
            if self._events is not None:
                self._events.close()
        if self._wandb is not None:
            self._wandb.finish()


class EventFile:
    """Curves for TensorBoard, on disk when `write` returns.

    The library's own writer hands them to a thread, for which a run would wait for ever once that
    has met a full disk.
    """

    def __init__(self, run_dir: str, start_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        # Generated when it is imported, so that a type checker sees no names in it.
        self._messages: Any = event_pb2
        self._folder = user_path(run_dir) / "tensorboard"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(self._folder / "events"))
        # Hides what was recorded past the step that is gone on from.
        session = self._messages.SessionLog
        self._append(start_step + 1, session_log=session(status=session.START))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to the curve of each name.

        Raises:
            OSError: the file cannot be written; names its folder.
        """
        from tensorboardX.summary import scalar

        with _naming(self._folder):
            for name, value in values.items():
                self._append(step, summary=scalar(name, value))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, step: int, **content: Any) -> None:
        event = self._messages.Event(wall_time=time.time(), step=step, **content)
        self._file.write_event(event)


class NoLog:
    """The log of a process that is not the first: it keeps nothing."""

    def __init__(self, *arguments: Any, **options: Any):
        pass

    def write(self, step: int, values: Mapping[str, float], kind: str = "train") -> None:
        """Drop a record."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *error: object) -> None:
        """There is nothing to close."""


def read_records(run_dir: str) -> list[dict[str, Any]]:
    """All records of a run in order; a last line torn by a kill is left out."""
    path = user_path(run_dir) / FILE
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("}\n")]


@contextmanager
def _naming(path: epath.Path) -> Iterator[None]:
    """Adds to an error in writing what was written, which Python leaves out."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def _wandb(project: str, run_dir: str, name: str) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ImportError(
            f"logging.wandb_project is {project!r} but wandb is not installed: pip install wandb"
        ) from error
    return wandb.init(
        project=project, dir=str(user_path(run_dir)), name=name or None, resume="allow"
    )
