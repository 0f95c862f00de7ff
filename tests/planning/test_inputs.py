"""Rows and steps of a plan, without data."""

import jax
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AbstractMesh

from adakd_jax.eval.command import user_errors
from adakd_jax.planning.hardware import TopologyError, read_topology
from adakd_jax.planning.inputs import attention_on, devices_of, layout_of, shapes_for, steps_of
from adakd_jax.sharding import AXES
from tests.planning.conftest import STUDENT

MESH = AbstractMesh((2, 2, 2), AXES)


@pytest.mark.parametrize(
    ("changes", "layout"),
    [
        ({"training": {"steps": 1, "batch_rows": 10}}, (1, 12)),
        ({"training": {"steps": 1, "batch_rows": 16, "micro_batch_rows": 4}}, (4, 4)),
        ({"training": {"steps": 1, "batch_examples": 16}}, (1, 16)),
        ({"training": {"steps": 1, "batch_examples": 16}, "tokens_per_example": 60}, (1, 8)),
        ({"rows_per_device": 3}, (1, 12)),
    ],
)
def test_rows_of_a_step(planned, changes, layout):
    assert layout_of(planned("cpu:8", **changes), MESH) == layout


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 100),
        ({"training": {"epochs": 2, "batch_examples": 16}}, None),
        ({"training": {"epochs": 2, "batch_examples": 16}, "examples": 100}, 14),
        # 100 examples of half a row each are 50 rows, 7 steps of 8.
        (
            {
                "training": {"epochs": 2, "batch_rows": 8},
                "examples": 100,
                "tokens_per_example": 64,
            },
            14,
        ),
    ],
)
def test_steps_of_a_run(planned, changes, steps):
    assert steps_of(planned("cpu:8", **changes), (1, 8)) == steps


def test_topologies_in_one_text(planned):
    assert planned("v5e-16,cpu:8").topology == ("v5e-16", "cpu:8")


def test_more_cpu_devices_than_there_are():
    assert np.size(devices_of(read_topology("cpu:1"))) == 1
    with pytest.raises(TopologyError, match=r"has 1 CPU devices.*device_count=8"):
        devices_of(read_topology("cpu:8"))
    assert len(jax.devices("cpu")) == 1


@pytest.mark.usefixtures("libtpu")
def test_a_shape_that_no_slice_has_is_refused():
    with pytest.raises(TopologyError, match=r"v5e:3x5: libtpu has none"):
        devices_of(read_topology("v5e:3x5"))
    assert len(devices_of(read_topology("v5e-1"))) == 1
    assert len(devices_of(read_topology("v4-8"))) == 4  # one device a chip, not a core


def test_without_the_cuda_plugin_a_sentence_says_what_to_install(monkeypatch, capsys):
    def without(*_, platform, **__):
        raise NotImplementedError(f"topology not implemented for {platform}")

    monkeypatch.setattr(topologies, "get_topology_desc", without)
    with pytest.raises(SystemExit) as ended, user_errors("plan"):
        devices_of(read_topology("h100:8"))
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("plan: topology h100:8: JAX's CUDA plugin")
    assert line.endswith('is not installed: pip install "adakd_jax[cuda13]"')


@pytest.mark.parametrize(
    ("head_dim", "precision", "length", "student", "teacher"),
    [
        (8, "bfloat16", 128, "cudnn", "cudnn"),
        (8, None, 128, "cudnn", "cudnn"),  # bfloat16 on a GPU
        (8, None, 127, "triton", "triton"),
        (256, None, 128, "triton", "cudnn"),  # each model has its own
        (8, "float32", 128, "xla", "cudnn"),
    ],
)
def test_a_gpu_runs_what_it_can(planned, head_dim, precision, length, student, teacher):
    hf = {**STUDENT, "head_dim": head_dim}
    data = {"train": {"kind": "file", "path": "no.jsonl"}, "max_prompt_length": 64}
    config = planned(
        "a100-80g:8",
        data={**data, "max_length": length},
        student={"kind": "random", "config": hf, "compute_dtype": precision},
    )
    shapes = shapes_for(config, read_topology("a100-80g:8"), (1, 8))
    assert shapes.student.attention_implementation == student
    assert shapes.teacher.attention_implementation == teacher
    assert attention_on(read_topology("v5e:2x2"), length) == "splash"
