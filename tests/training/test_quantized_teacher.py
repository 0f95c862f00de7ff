"""A run with a rounded teacher: its weights are bytes, and what cannot be is refused before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.models.quantized import quantization_of
from adakd_jax.training.dry_run import _bytes, run_shapes
from adakd_jax.training.models import describe, load_teacher
from adakd_jax.training.records import read_records
from tests.hf.tiny import TINY_LLAMA, make_pretrained
from tests.training.tiny_run import run

SHORT = {
    "training": {"steps": 3, "batch_rows": 2},
    "evaluation": {"generate_examples": 0},
    "policy": {"kind": "offline"},
}


@pytest.fixture(scope="module")
def student(teacher, tmp_path_factory):
    config = TINY_LLAMA | {"max_position_embeddings": 128, "num_hidden_layers": 1}
    model = make_pretrained(config, load_pretrained(teacher).tokenizer)
    return save_pretrained(model, tmp_path_factory.mktemp("student") / "model")


def test_a_run_learns_from_a_teacher_in_bytes(settings, teacher, student):
    config = settings(
        teacher={"path": str(teacher), "quantization": "int8"},
        student={"kind": "checkpoint", "path": str(student)},
        **SHORT,
    )
    loaded = load_teacher(config.teacher)
    up = loaded.params["layers"]["ffw"]["up"]["kernel"]
    assert up.qvalue.dtype == jnp.int8 and up.qvalue.nbytes == 3 * 32 * 64
    assert "0.0M parameters" in describe(loaded) and describe(loaded).endswith("kernels int8")
    shown = run(config)
    assert "kernels int8" in shown and "exported" in shown
    losses = [record["loss"] for record in read_records(config.run_dir) if "loss" in record]
    assert len(losses) == 3 and np.all(np.isfinite(losses)) and losses[-1] < losses[0]
    exported = load_pretrained(f"{config.run_dir}/export")
    assert quantization_of(exported.params) is None
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(loaded.params))
    assert _bytes(run_shapes(config).teacher_params) == held  # what `--dry_run` says of it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": {"kind": "layers", "layers": [0]}}, "start from the teacher's rounded"),
        ({"teacher": {"adapter": "some/adapter"}}, "cannot be merged into rounded weights"),
        ({"student": {"kind": "checkpoint", "quantization": "int8"}}, "quantization"),
        ({"teacher": {"quantization": "int3"}}, "int3|int8"),
        ({"teacher": {"quantization_tile": 0}}, "greater than 0"),
    ],
)
def test_what_cannot_be_is_refused_by_its_settings(settings, teacher, changes, message):
    values = {
        "teacher": {"path": str(teacher), "quantization": "nf4"},
        "student": {"kind": "checkpoint", "path": "some/student"},
    }
    for stage, changed in changes.items():
        kind = changed.get("kind", "checkpoint")
        values[stage] = changed if kind == "layers" else values[stage] | changed
    with pytest.raises(ValidationError, match=message):
        settings(**values)
