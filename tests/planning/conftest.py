"""The settings of a tiny run, and devices to compile for that are not there."""

import importlib.util
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from adakd_jax.config.plan import PlanConfig
from adakd_jax.planning.compile import Plan
from adakd_jax.planning.hardware import GIB, read_topology
from adakd_jax.planning.memory import Memory
from adakd_jax.planning.work import Operations

TEACHER, STUDENT = (
    {
        "model_type": "llama",
        "vocab_size": 64,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
    }
    for width, layers in ((32, 3), (16, 2))
)


def tiny_settings(**changes):
    """Nested, as in YAML; the teacher is nowhere, and neither is the data."""
    return {
        "run_dir": "runs/tiny",
        "data": {
            "train": {"kind": "file", "path": "no.jsonl"},
            "max_length": 128,
            "max_prompt_length": 64,
        },
        "teacher": {"path": "nobody/teacher", "architecture": TEACHER},
        "student": {"kind": "random", "config": STUDENT, "remat": "none"},
        "training": {"steps": 100, "batch_rows": 8},
        **changes,
    }


def refused_plan(topology="v5e-16", **parts):
    """A plan for 16 devices that does not fit, of so many GiB."""
    topology = read_topology(topology)
    return Plan(
        topology=topology,
        mesh={"data": 4, "fsdp": 4, "tensor": 1},
        layout=(1, 64),
        length=128,
        remat="dots",
        steps=None,
        models={},
        attention={},
        memory=Memory({k: v * GIB for k, v in parts.items()}, topology.chip.hbm, False),
        operations=Operations(1.0, 1.0),
        compiled_operations=None,
        moved=None,
        collectives=None,
        roofline=None,
        compile_seconds=1.0,
    )


def mesh_of_numbers(shape, hosts=1):
    """Numbers in place of devices, as far as a text is concerned, of hosts alike."""
    count = math.prod(shape)
    devices = np.array(
        [SimpleNamespace(slice_index=0, process_index=n * hosts // count) for n in range(count)]
    )
    return SimpleNamespace(devices=devices.reshape(shape), axis_names=("data", "fsdp", "tensor"))


@pytest.fixture
def cuda_plugin():
    """Compiles for GPUs that are not there."""
    if not any(importlib.util.find_spec(f"jax_cuda{major}_plugin") for major in (12, 13)):
        pytest.skip("needs JAX's CUDA plugin: the cuda13 extra")
    # What is compiled for an absent device cannot be read back from the compilation cache.
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float("inf"))
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


@pytest.fixture
def planned():
    def make(topology, **changes):
        return PlanConfig.model_validate({**tiny_settings(**changes), "topology": topology})

    return make
