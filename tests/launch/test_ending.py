"""How a training ends, and what is made of it: on its machine, on a TPU worker, in a SLURM job.

The training is a process that takes signals as `adakd_jax.train` does: it saves and ends with 0.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAINING = """#!{python}
import signal, sys, time

print("training", *sys.argv[3:], flush=True)
kind, code = sys.argv[-2:]
if kind == "--ends":
    sys.exit(int(code))

def save(*_):
    if kind == "--saves":
        print("saved", flush=True)
        sys.exit(int(code))

signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(30)
"""


@pytest.fixture
def training(tmp_path):
    file = tmp_path / "training"
    file.write_text(TRAINING.format(python=sys.executable))
    file.chmod(0o755)
    return file


def wait_for(text: str, file: Path) -> None:
    for _ in range(200):
        if file.exists() and text in file.read_text():
            return
        time.sleep(0.05)
    raise TimeoutError(f"no {text!r} in {file}")


def start(script: str, *arguments: str, log: Path, env: dict[str, str]) -> subprocess.Popen:
    with log.open("w") as output:
        return subprocess.Popen(
            ["bash", f"launch/{script}", *arguments], cwd=ROOT, env=env, stdout=output
        )


def train(training: Path, kind: str, code: int, log: Path) -> subprocess.Popen:
    return start("train.sh", kind, str(code), log=log, env={**os.environ, "PYTHON": str(training)})


@pytest.mark.parametrize("code", [0, 1, 2, 134])
def test_the_exit_code_of_a_training_that_ends_by_itself(training, tmp_path, code):
    assert train(training, "--ends", code, tmp_path / "log").wait(20) == code


@pytest.mark.parametrize(("code", "seen"), [(0, 75), (1, 1)])
def test_a_training_stopped_by_sigterm_is_not_finished(training, tmp_path, code, seen):
    process = train(training, "--saves", code, tmp_path / "log")
    wait_for("ready", tmp_path / "log")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == seen
    assert "saved" in (tmp_path / "log").read_text()


def test_sigterm_before_the_training_can_take_it(tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/usr/bin/env bash\necho ready\nexec sleep 30\n")
    slow.chmod(0o755)
    process = train(slow, "--ends", 0, tmp_path / "log")
    wait_for("ready", tmp_path / "log")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75


def test_wrong_settings_are_told_apart(tmp_path):
    done = subprocess.run(
        ["bash", "launch/train.sh", "--config", str(tmp_path / "absent.yaml")],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "absent.yaml" in done.stderr


class Worker:
    def __init__(self, training: Path, state: Path):
        self.state = state
        self.environment = {**os.environ, "PYTHON": str(training), "STATE": str(state)}

    def __call__(self, *arguments: str, **variables: str):
        return subprocess.run(
            ["bash", "launch/worker.sh", *arguments],
            cwd=ROOT,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=30,
        )


@pytest.fixture
def worker(training, tmp_path):
    worker = Worker(training, tmp_path / "state")
    yield worker
    worker("stop", STOP_SECONDS="0")


@pytest.mark.parametrize("code", [0, 2])
def test_a_worker_shows_the_log_and_the_exit_code(worker, code):
    assert worker("start", "--ends", str(code)).returncode == 0
    shown = worker("log")
    assert shown.returncode == 0 and f"training --ends {code}" in shown.stdout
    assert worker("status").returncode == code


def test_a_worker_trains_once_at_a_time_and_stops_when_told(worker):
    worker("start", "--saves", "0")
    wait_for("ready", worker.state / "log")
    assert "running already" in worker("start", "--saves", "0").stdout
    running = worker("status", STATUS_SECONDS="0")
    assert running.returncode == 1 and "still running" in running.stderr
    assert worker("stop").returncode == 0
    assert worker("status").returncode == 75
    assert (worker.state / "log").read_text().split().count("ready") == 1


def test_a_worker_kills_what_does_not_stop(worker):
    worker("start", "--deaf", "0")
    wait_for("ready", worker.state / "log")
    assert "killed" in worker("stop", STOP_SECONDS="1").stderr
    done = worker("status")
    assert done.returncode == 1 and "no exit code" in done.stderr
    assert worker("start", "--ends", "0").returncode == 0
    assert worker("status").returncode == 0


def test_a_worker_that_never_started_says_so(worker):
    assert "no training was started" in worker("log").stderr
    assert worker("status").returncode == 1
    assert "valid: start" in worker("fly").stderr


@pytest.fixture
def slurm_job(launch, training, tmp_path):
    pid = tmp_path / "pid"
    launch.program("srun", f'echo $$ >{pid}\nshift 5\nexec {training} -m adakd_jax.train "$@"')
    launch.program("scancel", f"kill -TERM $(cat {pid})")
    launch.program("scontrol", "exit 0")

    def job(*flags: str, **variables: str) -> subprocess.Popen:
        environment = launch.environment(SLURM_JOB_ID="7", **variables)
        return start("slurm.sh", "job", "--", *flags, log=tmp_path / "log", env=environment)

    return job


@pytest.mark.parametrize("code", [0, 3])
def test_a_slurm_job_that_ends_by_itself_is_not_queued_again(slurm_job, launch, code):
    assert slurm_job("--ends", str(code)).wait(20) == code
    assert [call.split()[0] for call in launch.called] == ["srun"]


@pytest.mark.parametrize(("restarts", "requeued"), [("0", True), ("50", False)])
def test_a_slurm_job_saves_before_its_time_is_up_and_queues_again(
    slurm_job, launch, tmp_path, restarts, requeued
):
    process = slurm_job("--saves", "0", SLURM_RESTART_COUNT=restarts)
    wait_for("ready", tmp_path / "log")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == (0 if requeued else 1)
    assert "saved" in (tmp_path / "log").read_text()
    assert "scancel --signal=TERM 7" in launch.called
    assert ("scontrol requeue 7" in launch.called) == requeued


def test_a_slurm_job_ended_from_outside_stays_ended(slurm_job, launch, tmp_path):
    process = slurm_job("--saves", "0")
    wait_for("ready", tmp_path / "log")
    process.terminate()
    assert process.wait(20) != 0
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    assert not any("scontrol" in call for call in launch.called)
