"""A tiny run of the real command: its teacher, its rows, its settings, its processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adakd_jax.config import RunConfig
from adakd_jax.config.yaml_file import dump_yaml
from adakd_jax.hf.export import save_pretrained
from benchmarks.suite import ROOT
from tests.hf.tiny import SENTENCES, tiny_teacher

STEPS = 40
# A few short answers at a time; and held-out NLL often, as distillm uses them when it rises.
_ANSWERS = {"generation": {"max_new_tokens": 8, "temperature": 1.0, "batch_size": 4}}
POLICIES: dict[str, dict[str, Any]] = {
    "offline": {},
    "gkd": {"policy": {"kind": "gkd", **_ANSWERS}},
    "distillm": {
        "policy": {"kind": "distillm", "capacity": 6, "loss_eps": 0.0, "rise": 0.5, **_ANSWERS},
        "evaluation": {"every_steps": 2},
    },
}
TIMEOUT_SECONDS = 300.0
POLL_SECONDS = 0.002
# A shell that may mount disks of its own: nobody else sees them, and they go when it ends.
WITH_OWN_MOUNTS = ("unshare", "--map-root-user", "--mount", "sh", "-c")


class Workplace:
    """A folder with a tiny teacher and rows, in which runs are made.

    Args:
        folder: made and filled if absent; what is there already is used.
        steps: optimizer steps of a run.
        compilations: where compiled programs are kept; by default in the folder.
    """

    def __init__(self, folder: Path, steps: int = STEPS, compilations: Path | None = None):
        self.folder = folder.absolute()
        self.steps = steps
        self.teacher = self.folder / "teacher"
        self.rows = self.folder / "rows.jsonl"
        self.compilations = compilations or self.folder / "compilations"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.teacher.exists():
            save_pretrained(tiny_teacher(), self.teacher)
        lines = [
            {"instruction": f"Say it {n} times.", "output": SENTENCES[n % 3][: 10 + n]}
            for n in range(24)
        ]
        self.write_rows(self.rows, lines)

    def write_rows(self, file: Path, rows: list[dict[str, str]]) -> Path:
        """Writes a JSONL file."""
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    def settings(self, run_dir: Path, **changes: Any) -> RunConfig:
        """Settings of a run: checkpoints often, held-out rows measured, LATF, averaged weights."""
        values: dict[str, Any] = {
            "run_dir": str(run_dir),
            "seed": 3,
            "data": {
                "train": {"kind": "file", "path": str(self.rows)},
                "validation_fraction": 0.25,
                "template": "chat",
                "max_length": 64,
                "max_prompt_length": 48,
                "cache_dir": str(self.folder / "data"),
            },
            "teacher": {"path": str(self.teacher)},
            "student": {"kind": "layers", "layers": [0, 2]},
            "distill": {"focus": {"kind": "latf", "ema": 0.5, "tolerance": 0.01}},
            "optimizer": {"learning_rate": 5e-3, "average_decay": 0.5},
            "training": {"steps": self.steps, "batch_rows": 2},
            "checkpoint": {"every_steps": 2},
            "evaluation": {"every_steps": 10, "batch_rows": 2, "generate_examples": 0},
        }
        for key, change in changes.items():
            both = isinstance(change, dict) and isinstance(values.get(key), dict)
            values[key] = values[key] | change if both else change
        return RunConfig.model_validate(values)

    def start(self, config: RunConfig, compilations: Path | None = None) -> "Training":
        """Starts the training command in a process of its own."""
        return Training(config, compilations or self.compilations)

    def finish(self, config: RunConfig, compilations: Path | None = None) -> "Training":
        """Runs the training command to its end."""
        training = self.start(config, compilations)
        training.wait()
        return training

    def fresh(self, name: str) -> Path:
        """An empty place for a run folder."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)
        return folder


def environment(compilations: Path) -> dict[str, str]:
    """Cheap compilations, kept: the programs are tiny and the same for every start."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        "JAX_COMPILATION_CACHE_DIR": str(compilations),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }


def command(config: RunConfig) -> list[str]:
    """The command of a training, with its settings in a file beside the run folder."""
    file = Path(config.run_dir).with_suffix(".yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dump_yaml(config))
    return [sys.executable, "-m", "adakd_jax.train", "--config", str(file)]


class Training:
    """A start of the training command, watched from outside."""

    def __init__(self, config: RunConfig, compilations: Path):
        self.run_dir = Path(config.run_dir)
        self.log = self.run_dir.with_suffix(".log")
        arguments = command(config)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("a") as output:
            self.process = subprocess.Popen(
                arguments,
                cwd=ROOT,
                env=environment(compilations),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def shown(self) -> str:
        """What this start has printed so far."""
        with self.log.open("rb") as file:
            file.seek(self._before)
            return file.read().decode(errors="replace")

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self.process.poll()

    def wait(self, seconds: float = TIMEOUT_SECONDS) -> int:
        """Waits for the end; one that does not come is an error.

        Raises:
            TimeoutError: still running; it is killed.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise TimeoutError(f"still running after {seconds:.0f} s:\n{self.shown}") from None

    def wait_until(self, reached: Callable[[], bool]) -> bool:
        """Waits until something holds; False if the process ends before that."""
        until = time.monotonic() + TIMEOUT_SECONDS
        while not reached():
            if self.code is not None:
                return False
            if time.monotonic() > until:
                self.process.kill()
                raise TimeoutError(f"not reached:\n{self.shown}")
            time.sleep(POLL_SECONDS)
        return True

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if the process still runs."""
        if self.code is None:
            self.process.send_signal(number)


def saved_steps(run_dir: Path) -> list[int]:
    """Steps of the complete checkpoints."""
    names = [path.name for path in run_dir.glob("checkpoints/step_*")]
    numbers = (name.removeprefix("step_") for name in names)
    return sorted(int(number) for number in numbers if number.isdigit())


def recorded(run_dir: Path) -> int:
    """Records of training steps and evaluations so far."""
    file = run_dir / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0
