"""The command line of the launchers: what they would run, and what they refuse."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "launch").glob("*.sh"))
STEPS = {
    "tpu_pod.sh": "create install run log resume delete all",
    "gke.sh": "install run log status resume delete",
    "skypilot.sh": "run log status resume delete",
    "slurm.sh": "install run log status resume delete",
}


def test_shellcheck_finds_nothing():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    files = [ROOT / ".ci" / "run", *(ROOT / "launch" / name for name in SCRIPTS)]
    done = subprocess.run(
        [shellcheck, "--external-sources", *files], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_dry_run_of_every_step_runs_no_command(launch, tmp_path):
    for launcher, steps in STEPS.items():
        for step in steps.split():
            assert launch.dry_run(launcher, step, TMPDIR=str(tmp_path)), (launcher, step)
    assert launch.called == []
    assert {path.name for path in tmp_path.iterdir()} == {"bin"}


def test_flags_of_the_training_survive_every_shell_on_the_way(launch):
    value = "it's $HOME & more"
    flags = ("--", "--data.train.path", value)
    remote = shlex.split(launch.dry_run("tpu_pod.sh", "run", *flags))
    command = next(word for word in remote if word.startswith("--command="))
    assert shlex.split(command.partition("=")[2])[-1] == value
    sky = shlex.split(launch.dry_run("skypilot.sh", "run", *flags))[-1]
    assert shlex.split(sky.removeprefix("--env=FLAGS="))[-1] == value
    assert shlex.split(launch.dry_run("slurm.sh", "run", *flags))[-1] == value
    pod = re.search(r"exec bash (.*)", launch.dry_run("gke.sh", "run", *flags))
    assert pod and shlex.split(pod[1])[-1] == value


def test_tpu_pod_commands(launch):
    lines = launch.dry_run("tpu_pod.sh", "all", "--", "--seed", "3").splitlines()
    tpu = "gcloud compute tpus queued-resources"
    where = "--project=proj --zone=us-west4-a"
    everywhere = "--node=all --worker=all"
    assert lines[0] == (
        f"{tpu} create trial --node-id=trial --accelerator-type=v5litepod-16 "
        f"--runtime-version=v2-alpha-tpuv5-lite --spot {where}"
    )
    start = "bash adakd_jax/launch/worker.sh start"
    flags = "--config configs/quickstart.yaml --run_dir gs://bucket/run --seed 3"
    assert f"{tpu} ssh trial {everywhere} '--command={start} {flags}' {where}" in lines
    assert lines[-1] == f"{tpu} delete trial --force --quiet {where}"
    order = [" create ", " bundle ", " scp ", "install.sh", " start ", "worker.sh log", " delete "]
    found = [next(i for i, line in enumerate(lines) if word in line) for word in order]
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SLICES": "2"}, "--node-count=2 --node-prefix=trial"),
        ({"CAPACITY": "reserved"}, "--reserved"),
        ({"CAPACITY": "flex-start"}, "--provisioning-model=flex-start --max-run-duration=7d"),
        ({"ACCELERATOR": "v6e-16", "RUNTIME_VERSION": "v2-alpha-tpuv6e"}, "=v6e-16 --runtime"),
    ],
)
def test_tpu_pod_hardware(launch, variables, expected):
    assert expected in launch.dry_run("tpu_pod.sh", "create", **variables)


def test_skypilot_commands(launch):
    line = launch.dry_run("skypilot.sh", "run", "--", "--seed", "3", NODES="2", SPOT="no")
    assert line.strip() == (
        "sky jobs launch launch/skypilot.yaml --name=trial --gpus=H100:8 --num-nodes=2 "
        "--no-use-spot --env=RUN_DIR=gs://bucket/run --env=CONFIG=configs/quickstart.yaml "
        "--env=EXTRAS=cuda12,gcs '--env=FLAGS=--seed 3'"
    )


def test_slurm_commands(launch):
    line = launch.dry_run("slurm.sh", "run", "--", "--seed", "3", PARTITION="gpu", NODES="2")
    assert line.strip() == (
        f"sbatch --job-name=trial --dependency=singleton --chdir={ROOT} --partition=gpu "
        "--time=24:00:00 --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=8 "
        "--requeue --signal=B:USR1@300 --output=slurm-trial.log --open-mode=append "
        "launch/slurm.sh job -- --seed 3"
    )


@pytest.mark.parametrize("launcher", STEPS)
def test_help_explains_every_step_and_variable(launch, launcher):
    text = launch(launcher, "--help", RUN_DIR="").stdout
    source = (ROOT / "launch" / launcher).read_text()
    header = source.partition("set -euo pipefail")[0]
    for name in [*STEPS[launcher].split(), *re.findall(r"^([A-Z_]+)=", header, re.M)]:
        assert re.search(rf"^ *{name}\b", text, re.M), name


@pytest.mark.parametrize("launcher", STEPS)
def test_mistakes_are_refused_with_what_would_be_valid(launch, launcher):
    def refused(*arguments: str, **variables: str) -> str:
        done = launch(launcher, *arguments, **variables)
        assert done.returncode == 2, done.stdout
        return done.stderr

    for arguments in ((), ("fly",), ("run", "log"), ("run log",)):
        assert "delete" in refused(*arguments)
    assert "--dry-run" in refused("run", "--dry_run")
    assert "RUN_DIR" in refused("run", RUN_DIR="")
    assert launch.called == []


@pytest.mark.parametrize(
    ("launcher", "step", "name", "value", "valid"),
    [
        ("tpu_pod.sh", "create", "CAPACITY", "cheap", "on-demand"),
        ("tpu_pod.sh", "run", "RUN_DIR", "runs/x", "gs://"),
        ("gke.sh", "run", "RUN_DIR", "runs/x", "gs://"),
        ("gke.sh", "run", "CHIPS_PER_HOST", "3", "divisor of the 16"),
        ("skypilot.sh", "run", "SPOT", "perhaps", "yes, no"),
    ],
)
def test_wrong_values_are_refused(launch, launcher, step, name, value, valid):
    done = launch(launcher, step, "--dry-run", **{name: value})
    assert done.returncode == 2
    assert name in done.stderr and value in done.stderr and valid in done.stderr
