"""The settings of a tiny run, and TPUs to compile for that are not there."""

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


def refused_plan(**parts):
    """A plan that does not fit, of so many GiB."""
    topology = read_topology("v5e-16")
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


@pytest.fixture
def planned():
    def make(topology, **changes):
        return PlanConfig.model_validate({**tiny_settings(**changes), "topology": topology})

    return make
