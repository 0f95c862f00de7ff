"""A run in a process of its own, killed while it saves, goes on as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from adakd_jax.config.yaml_file import dump_yaml
from tests.training.tiny_run import latest, run, weights

TIMEOUT = 240.0


def start(config, file):
    file.write_text(dump_yaml(config))
    return subprocess.Popen(
        [sys.executable, "-m", "adakd_jax.train", "--config", str(file)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def kill_while_saving(process, folder):
    """Waits for a checkpoint that has begun and is not complete, and ends the process then."""
    until = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < until:
        if complete(folder) and any(folder.glob("*tmp*")):
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            return
        time.sleep(0.0005)
    shown = process.communicate()[0].decode()
    pytest.fail(f"ended before it could be killed:\n{shown[-2000:]}")


def complete(folder):
    return [path for path in folder.glob("step_*") if "tmp" not in path.name]


def test_a_run_killed_during_a_save_continues_bit_for_bit(settings, tmp_path):
    every_step = {"checkpoint": {"every_steps": 1}, "evaluation": {"generate_examples": 0}}
    whole, killed = settings("whole", **every_step), settings("killed", **every_step)
    run(whole)
    process = start(killed, tmp_path / "killed.yaml")
    kill_while_saving(process, tmp_path / "killed" / "checkpoints")
    saved = latest(killed)
    assert 1 <= saved < latest(whole)
    assert f"continuing after step {saved} of" in run(killed)
    for one, other in zip(weights(whole), weights(killed), strict=True):
        assert np.array_equal(one, other)
