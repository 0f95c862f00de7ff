"""Whole plans: of virtual CPU devices, of TPUs, and of what does not fit."""

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import yaml
from jax.sharding import SingleDeviceSharding

from adakd_jax.console import Console
from adakd_jax.planning import compile
from adakd_jax.planning.advice import advice
from adakd_jax.planning.command import run_plans
from adakd_jax.planning.hardware import GIB, read_topology
from adakd_jax.planning.hlo import read_program
from adakd_jax.planning.inputs import devices_of
from adakd_jax.planning.memory import memory_from_refusal
from tests.planning.conftest import refused_plan, tiny_settings

ROOT = Path(__file__).parents[2]


def test_cpu_devices_end_to_end(tmp_path):
    settings = tmp_path / "tiny.yaml"
    settings.write_text(yaml.safe_dump(tiny_settings()))
    file = tmp_path / "plan.json"
    command = [sys.executable, "-m", "adakd_jax.plan", "--config", str(settings)]
    options = ["--topology", "cpu:8", "--mesh.fsdp", "4", "--mesh.tensor", "2", "--json", str(file)]
    # As on a machine with GPUs: none of them is taken.
    environment = {**os.environ, "JAX_PLATFORMS": "cuda"}
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, cwd=ROOT, env=environment,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "compiles; how much memory there is, is not known" in done.stdout
    assert "no data sheet of cpu" in done.stdout
    [plan] = json.loads(file.read_text())
    assert plan["mesh"] == {"data": 1, "fsdp": 4, "tensor": 2} and plan["rows_per_device"] == 2
    kinds = {one["kind"] for one in plan["collectives"]}
    assert "all-gather" in kinds and kinds & {"all-reduce", "reduce-scatter"}
    student = plan["memory"]["parts"]["student"]
    # AdamW's two moments, LATF's numbers and the counters.
    assert 2 * student < plan["memory"]["parts"]["optimizer and averages"] < 2 * student + 100
    assert plan["operations"]["needed"] > 0 and plan["estimate"] is None


@pytest.mark.slow
@pytest.mark.usefixtures("libtpu")
def test_tpus_end_to_end(planned, tmp_path, monkeypatch):
    texts = []

    def read(text):
        texts.append(text)
        return read_program(text)

    monkeypatch.setattr(compile, "read_program", read)
    file = tmp_path / "plan.json"
    mesh = {"fsdp": 2, "tensor": 2}
    console = Console(file=io.StringIO(), width=120)
    config = planned("v5e:2x2", mesh=mesh, json=str(file))
    assert run_plans(config, search=False, console=console)
    told = console.file.getvalue()
    # The attention kernels are in the program of a mesh, forward and backward.
    assert "splash_mha_fwd" in texts[0] and "splash_mha_dkv" in texts[0]
    assert "fits: " in told and "all-gather" in told and "estimate by the chip's data" in told
    [plan] = json.loads(file.read_text())
    # The teacher's weights are in bfloat16 there, whatever this process runs on.
    parts = plan["memory"]["parts"]
    assert plan["models"]["teacher"].endswith("bfloat16")
    assert 0 < parts["teacher"] < parts["optimizer and averages"] * 2
    estimate = plan["estimate"]
    assert estimate["in_turn"]["seconds"] == pytest.approx(sum(estimate["parts"].values()))
    assert estimate["overlapped"]["days"] == pytest.approx(
        100 * estimate["overlapped"]["seconds"] / 86_400
    )


@pytest.mark.slow
@pytest.mark.usefixtures("libtpu")
def test_slices_send_each_other_their_part_of_the_gradients(planned, tmp_path):
    file = tmp_path / "plan.json"
    config = planned("v5e:1x1", mesh={"slices": 2}, json=str(file))
    assert run_plans(config, search=False, console=Console(file=io.StringIO()))
    [plan] = json.loads(file.read_text())
    assert plan["mesh"] == {"data": 2, "fsdp": 1, "tensor": 1}
    [reduced] = [one for one in plan["collectives"] if one["kind"] == "all-reduce"]
    assert reduced["network"] == reduced["sent"] and reduced["group"] == 2
    # The gradients of all weights, in float32 or less, are as large as these or half of it.
    student = plan["memory"]["parts"]["student"]
    assert 0.4 * student < reduced["size"] < 1.5 * student
    assert plan["estimate"]["parts"]["network"] > 0


@pytest.mark.usefixtures("libtpu")
def test_the_compilers_refusal_is_understood():
    [device] = devices_of(read_topology("v5e-1"))
    size = 7 * GIB
    x = jax.ShapeDtypeStruct((size,), jnp.int8, sharding=SingleDeviceSharding(device))
    with pytest.raises(jax.errors.JaxRuntimeError) as refused:
        jax.jit(lambda x: (x + 1, x * 2)).lower(x).compile()
    memory = memory_from_refusal({"x": float(size)}, str(refused.value))
    assert memory is not None and not memory.fits
    assert memory.capacity == read_topology("v5e-1").chip.hbm
    assert memory.parts == {"x": size, "temporaries": 2 * size}
    assert memory_from_refusal({}, "some other error") is None


def test_what_does_not_fit_is_told_what_to_change(planned):
    config = planned("v5e-16", mesh={"fsdp": 4})
    told = "\n".join(advice(config, refused_plan(student=1, teacher=3, temporaries=14)))
    assert told.startswith("largest: temporaries, 14.00 GiB\n--student.remat full")
    assert "--training.micro_batch_rows 32: 2 rows a device at a time in place of 4" in told
    assert "--mesh.fsdp 16: weights and optimizer in 16 parts, about 1.00 GiB" in told
    told = "\n".join(advice(config, refused_plan(student=40, teacher=50, temporaries=1)))
    assert told.startswith("largest: teacher, 50.00 GiB\n--mesh.fsdp 16")
    assert "weights and optimizer alone need 23 devices" in told
    fitting = refused_plan(student=1)
    fitting = dataclasses.replace(fitting, memory=fitting.memory._replace(fits=True))
    assert advice(config, fitting) == []


def test_gpus_are_told_what_to_change(planned):
    config = planned("h100:8x2")
    plan = refused_plan("h100:8x2", student=20, teacher=38, temporaries=8)
    told = advice(config, plan)
    # 66 of 59.33 GiB, but the GPU has 79.11.
    assert told[1].startswith("XLA_CLIENT_MEM_FRACTION=0.9 in the environment: JAX then takes ")
    assert told[1].endswith("71.20 of 79.11 GiB in place of 59.33, which is enough")
    # Temporaries are not the largest part, and yet a quarter of them would do.
    assert any(line.startswith("--student.remat full") for line in told)
    assert any(line.startswith("--mesh.fsdp 16: weights") for line in told)
    told = "\n".join(advice(config, refused_plan("h100:8x2", student=400, teacher=900)))
    assert "MEM_FRACTION" not in told and "more GPUs: weights and optimizer alone need 88" in told
    assert "slice" not in told


def test_one_device_alone_is_not_told_to_share(planned):
    alone = dict(mesh={"data": 1, "fsdp": 1, "tensor": 1}, layout=(1, 39))
    plan = dataclasses.replace(refused_plan("h100:1", student=50, temporaries=20), **alone)
    told = "\n".join(advice(planned("h100:1"), plan))
    assert "--training.micro_batch_rows 20: 20 rows a device at a time in place of 39" in told
    assert "--mesh" not in told
