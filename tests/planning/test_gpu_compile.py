"""Programs compiled for NVIDIA GPUs that are not there: needs JAX's CUDA plugin, no GPU."""

import io
import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from adakd_jax.console import Console
from adakd_jax.planning import compile
from adakd_jax.planning.command import run_plans
from adakd_jax.planning.gpu_targets import GPUS
from adakd_jax.planning.hardware import read_topology
from adakd_jax.planning.hlo import read_program, runs
from adakd_jax.planning.inputs import devices_of, mesh_of
from adakd_jax.planning.products import compiled_operations
from adakd_jax.planning.traffic import bytes_moved

pytestmark = [pytest.mark.gpu_compile, pytest.mark.usefixtures("cuda_plugin")]
BF16, F32 = jnp.bfloat16, jnp.float32


def compiled(function, *arrays, gpu="h100"):
    """The program of a function of arrays (shape, dtype)."""
    [device] = devices_of(read_topology(f"{gpu}:1"))
    there = SingleDeviceSharding(device)
    shapes = [jax.ShapeDtypeStruct(shape, dtype, sharding=there) for shape, dtype in arrays]
    return read_program(jax.jit(function).lower(*shapes).compile().as_text())


@pytest.mark.parametrize("gpu", GPUS)
def test_every_gpu_is_compiled_for(gpu):
    program = compiled(jnp.matmul, ((256, 512), BF16), ((512, 1024), BF16), gpu=gpu)
    assert compiled_operations(program, 1.0) == 2 * 256 * 512 * 1024


# Of so many rows a product is not split along what it sums over.
ROWS, WIDTH, LAYERS = 4096, 1024, 6


def layers(weights, x):
    """Each layer's weight is sliced out of the stack, and then read."""
    return jax.lax.scan(lambda x, weight: (jnp.tanh(x @ weight), None), x, weights)[0]


def embed(table, places, rows):
    """A row for each place changes, in a copy of the table."""
    return table.at[places].add(rows)


@pytest.mark.parametrize(
    ("function", "arrays", "moved", "operations"),
    [
        (
            jnp.matmul,
            [((512, 1024), BF16), ((1024, 2048), BF16)],
            2 * (512 * 1024 + 1024 * 2048 + 512 * 2048),
            2 * 512 * 1024 * 2048,
        ),
        (
            lambda x, y: jnp.tanh(x) * y + 1,
            [((1024, 1024), BF16), ((1024, 1024), BF16)],
            3 * 2 * 1024 * 1024,
            0,
        ),
        (
            layers,
            [((LAYERS, WIDTH, WIDTH), BF16), ((ROWS, WIDTH), BF16)],
            # The compiler also copies what a round carries to the next.
            LAYERS * 2 * (3 * WIDTH * WIDTH + 4 * ROWS * WIDTH) + 2 * 2 * ROWS * WIDTH,
            LAYERS * 2 * ROWS * WIDTH * WIDTH,
        ),
        (
            embed,
            [((50_000, 64), F32), ((512,), jnp.int32), ((512, 64), F32)],
            # The table is copied, and then 512 rows read, added to and written.
            2 * 4 * 50_000 * 64 + 3 * 4 * 512 * 64 + 4 * 512,
            0,
        ),
    ],
    ids=["product", "elementwise", "layers", "scatter"],
)  # fmt: skip
def test_known_programs_are_counted(function, arrays, moved, operations):
    program = compiled(function, *arrays)
    assert bytes_moved(program, 1.0) == pytest.approx(moved, rel=0.1)
    assert compiled_operations(program, 1.0) == pytest.approx(operations, rel=0.1)


def test_fsdp_stays_within_a_host(planned):
    mesh = mesh_of(planned("h100:8x4", mesh={"fsdp": 8}), read_topology("h100:8x4"))
    hosts = [{device.process_index for device in row.flat} for row in mesh.devices]
    assert hosts == [{0}, {1}, {2}, {3}]


def planned_step(planned, tmp_path, monkeypatch, topology, **changes):
    """What is printed, written and compiled."""
    texts = []
    monkeypatch.setattr(
        compile, "read_program", lambda text: texts.append(text) or read_program(text)
    )
    file = tmp_path / "plan.json"
    console = Console(file=io.StringIO(), width=160)
    assert run_plans(planned(topology, json=str(file), **changes), search=False, console=console)
    return console.file.getvalue(), json.loads(file.read_text()), texts


def test_a_step_on_one_gpu(planned, tmp_path, monkeypatch):
    told, [plan], [text] = planned_step(planned, tmp_path, monkeypatch, "h100:1")
    assert plan["attention"] == {"teacher": "cudnn", "student": "cudnn"}
    calls = [run.instruction for run in runs(read_program(text), 1.0)
             if "__cudnn$fmha" in run.instruction.attributes]  # fmt: skip
    # In the loops over layers: the teacher's, the student's and its backward.
    assert len(calls) == 3 and sum("Backward" in call.attributes for call in calls) == 1
    # Nothing is computed again, so that both counts are of the same.
    assert plan["compiled_operations"] == pytest.approx(plan["operations"]["executed"], rel=0.1)
    parts = plan["memory"]["parts"]
    assert 2 * parts["student"] < parts["optimizer and averages"] < 2 * parts["student"] + 100
    assert plan["memory"]["capacity"] == 0.75 * GPUS["h100"].memory and plan["memory"]["fits"]
    assert "JAX takes 75% of the GPU's 79.11 GiB; more of it: XLA_CLIENT_MEM_FRACTION" in told
    assert "seconds are by data sheet" in told and "GPU-hours" in told
    # At least weights, moments and gradients are read, and all but gradients written.
    assert plan["bytes_moved"] > 7 * parts["student"]


def test_a_step_on_two_gpus(planned, tmp_path, monkeypatch):
    _, plans, texts = planned_step(
        planned, tmp_path, monkeypatch, "a100-80g:2,a100-80g:1x2", mesh={"fsdp": 2}
    )
    assert all("__cudnn$fmha" in text for text in texts)
    for plan, over_network in zip(plans, (False, True), strict=True):
        assert plan["mesh"] == {"data": 1, "fsdp": 2, "tensor": 1}
        assert plan["compiled_operations"] == pytest.approx(
            plan["operations"]["executed"] / 2, rel=0.1
        )
        kinds = {one["kind"]: one for one in plan["collectives"]}
        assert {"all-gather", "reduce-scatter"} <= kinds.keys()
        gathered = kinds["all-gather"]
        assert (gathered["axes"], gathered["group"]) == (["fsdp"], 2)
        # Each part of the teacher once; the student's, rounded, in forward and backward.
        parts = plan["memory"]["parts"]
        assert gathered["size"] > parts["teacher"] + parts["student"]
        assert gathered["network"] == (gathered["sent"] if over_network else 0.0)
        estimate = plan["estimate"]["parts"]
        assert (estimate["network"] > 0, estimate["links"] > 0) == (over_network, not over_network)
