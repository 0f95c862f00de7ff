"""A run of several processes is the run of one, and none of them outlives another."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from adakd_jax.config.yaml_file import dump_yaml
from adakd_jax.training.records import read_records
from tests.own_process import with_devices

# The group shares runs of a minute each.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]
TIMEOUT = 240.0
TOLD = ("loss", "keep_ratio", "grad_norm", "reverse_kl")
CHANGES = {
    # Not fitted: the last bits of what is fitted would differ, and training makes more of that.
    "student": {
        **{"kind": "pruned", "layers": 2, "ffw": 0.5, "heads": 0.5},
        **{"layers_by": "kl", "fit": False},
    },
    "training": {"steps": 8, "batch_rows": 4},
    "checkpoint": {"every_steps": 2},
    "mesh": {"fsdp": 2},
    "evaluation": {
        "every_steps": 4,
        "batch_rows": 2,
        "generate_examples": 2,
        "show_examples": 1,
        "token_snapshots": 2,
        "token_examples": 3,
        "generation": {"max_new_tokens": 4, "batch_size": 2},
    },
}


class Processes:
    """The processes of one run: `count` of them with four devices together."""

    def __init__(self, config, count):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        file = Path(config.run_dir).with_suffix(".yaml")
        file.write_text(dump_yaml(config))
        self.outputs = [file.with_suffix(f".{index}.log") for index in range(count)]
        self.all = []
        for index, output in enumerate(self.outputs):
            by_hand = {"coordinator": f"localhost:{port}", "count": count, "index": index}
            where = [f"--processes.{key}={value}" for key, value in by_hand.items()]
            command = [sys.executable, "-m", "adakd_jax.train", "--config", str(file)]
            with output.open("w") as shown:
                process = subprocess.Popen(
                    [*command, *(where if count > 1 else ())],
                    cwd=Path(__file__).parents[2],
                    env=os.environ
                    | {
                        "JAX_PLATFORMS": "cpu",
                        "XLA_FLAGS": with_devices(4 // count),
                    },
                    stdout=shown,
                    stderr=subprocess.STDOUT,
                )
            self.all.append(process)

    def codes(self, within=TIMEOUT):
        """Exit codes of all; they must have ended `within` seconds."""
        until = time.monotonic() + within
        try:
            return [process.wait(max(0.1, until - time.monotonic())) for process in self.all]
        except subprocess.TimeoutExpired:
            for process in self.all:
                process.kill()
            pytest.fail(f"still running after {within} s:\n" + "\n".join(self.shown()))

    def shown(self):
        return [output.read_text() for output in self.outputs]

    def wait_for(self, folder, pattern):
        until = time.monotonic() + TIMEOUT
        while not list(folder.glob(pattern)):
            assert time.monotonic() < until and all(p.poll() is None for p in self.all), (
                self.shown()
            )
            time.sleep(0.02)


def told(config):
    return {
        (record["kind"], record["step"]): [record[key] for key in TOLD if key in record]
        for record in read_records(config.run_dir)
    }


def kept(config):
    """What is kept of the teacher: the same, however many processes have looked for it."""
    return json.loads((Path(config.run_dir) / "pruning.json").read_text())["choice"]


def assert_same(config, other):
    mine, others = told(config), told(other)
    assert mine.keys() == others.keys()
    for key in mine:
        np.testing.assert_allclose(mine[key], others[key], rtol=1e-5, err_msg=str(key))


def assert_same_tokens(config, other):
    mine, others = (
        [json.loads((Path(c.run_dir) / "tokens" / f"step_{n}.json").read_text()) for n in (0, 8)]
        for c in (config, other)
    )
    for one, two in zip(mine, others, strict=True):
        assert one["keep_ratio"] == pytest.approx(two["keep_ratio"])
        assert len(one["examples"]) == len(two["examples"]) == 3
        for here, there in zip(one["examples"], two["examples"], strict=True):
            assert here["pieces"] == there["pieces"]
            for column in ("score", "student_nll", "teacher_nll"):
                np.testing.assert_allclose(here[column], there[column], atol=2e-4)


@pytest.fixture(scope="module")
def make(make_settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    return lambda name: make_settings(folder / name, **CHANGES)


@pytest.fixture(scope="module")
def alone(make):
    config = make("alone")
    run = Processes(config, 1)
    assert run.codes() == [0], run.shown()
    return config


@pytest.fixture(scope="module")
def two(make):
    config = make("two")
    run = Processes(config, 2)
    assert run.codes() == [0, 0], run.shown()
    return config, run.shown()


def test_two_processes_of_two_devices_are_one_of_four(alone, two):
    config, (first, second) = two
    assert_same(alone, config)
    assert "exported" in first and "mesh     data 2, fsdp 2, tensor 1" in first
    assert kept(alone) == kept(config)
    assert_same_tokens(alone, config)
    noise = re.compile(r"W\d{4} |.*(\[Gloo\]|connected peer ranks)")  # of libraries, in C++
    assert [line for line in second.splitlines() if line and not noise.match(line)] == []


def test_one_killed_ends_the_other_and_a_restart_is_exact(two, make):
    config = make("killed")
    for killed, checkpoint in ((0, "step_2"), (1, "step_4")):  # 0 coordinates the others
        run = Processes(config, 2)
        run.wait_for(Path(config.run_dir) / "checkpoints", checkpoint)
        run.all[killed].kill()
        codes, left = run.codes(within=60), 1 - killed
        assert codes[left] not in (0, 2) and codes[killed] == -signal.SIGKILL
        # Whichever notices first says so: the train loop, or JAX, which aborts.
        noticed = "another process has ended.* the same command continues|another task died"
        assert re.search(noticed, run.shown()[left]), run.shown()
    again = Processes(config, 2)
    assert again.codes() == [0, 0], again.shown()
    assert "continuing after step" in again.shown()[0]
    assert told(config) == told(two[0])


def test_what_another_start_would_not_cure_ends_all_with_2(two):
    run = Processes(two[0].model_copy(update={"seed": 9}), 2)
    assert run.codes() == [2, 2], run.shown()
    for shown in run.shown():
        assert "seed" in shown and "Traceback" not in shown


def test_a_signal_to_one_stops_all_after_the_same_step_and_one_process_goes_on(alone, make):
    config = make("stopped")
    run = Processes(config, 2)
    run.wait_for(Path(config.run_dir) / "checkpoints", "step_2")
    run.all[1].terminate()
    assert run.codes() == [0, 0], run.shown()
    assert "signal to another process: saved after step" in run.shown()[0]
    again = Processes(config, 1)
    assert again.codes() == [0], again.shown()
    assert "continuing after step" in again.shown()[0]
    assert_same(alone, config)
