"""Metrics on disk: `metrics.jsonl` always, TensorBoard by default, Weights & Biases if asked."""

import json
import math
from collections.abc import Mapping
from typing import Any

from etils import epath

from adakd_jax.config import LoggingConfig
from adakd_jax.whole_file import write_whole

FILE = "metrics.jsonl"


class MetricsLog:
    """Appends one record a step; after a restart, drops the records past the restored step."""

    def __init__(self, run_dir: str, config: LoggingConfig, *, start_step: int, name: str = ""):
        self._path = epath.Path(run_dir) / FILE
        kept = [r for r in read_records(run_dir) if r["step"] <= start_step]
        write_whole(self._path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = self._path.open("a")
        self._board = _tensorboard(run_dir, start_step) if config.tensorboard else None
        self._wandb = _wandb(config.wandb_project, run_dir, name) if config.wandb_project else None

    def write(self, step: int, values: Mapping[str, float], kind: str = "train") -> None:
        """Record `values` after `step` steps; `kind` is "train" or "eval". Non-finite values become
        null.
        """
        clean = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": step, "kind": kind, **clean}) + "\n")
        self._file.flush()
        finite = {f"{kind}/{k}": v for k, v in clean.items() if v is not None}
        if self._board is not None:
            for key, value in finite.items():
                self._board.add_scalar(key, value, step)
        if self._wandb is not None:
            self._wandb.log(finite, step=step)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: object) -> None:
        """Flush and close every sink."""
        self._file.close()
        for sink, end in ((self._board, "close"), (self._wandb, "finish")):
            if sink is not None:
                getattr(sink, end)()


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
    path = epath.Path(run_dir) / FILE
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def _tensorboard(run_dir: str, start_step: int) -> Any:
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(epath.Path(run_dir) / "tensorboard"), purge_step=start_step + 1)


def _wandb(project: str, run_dir: str, name: str) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ImportError(
            f"logging.wandb_project is {project!r} but wandb is not installed: pip install wandb"
        ) from error
    return wandb.init(project=project, dir=run_dir, name=name or None, resume="allow")
