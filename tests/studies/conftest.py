"""A tiny teacher, rows, a base run of them, and studies over it."""

import json

import pytest
import yaml

from adakd_jax.hf.export import save_pretrained
from tests.hf.tiny import SENTENCES, tiny_teacher
from tests.studies.tiny_study import STEPS, make_study


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The YAML of a run on a tiny teacher."""
    folder = tmp_path_factory.mktemp("base")
    teacher = save_pretrained(tiny_teacher(), folder / "teacher")
    for name, count in (("train", 18), ("held_out", 6)):
        rows = [
            {"instruction": f"Say it {n} times.", "output": SENTENCES[n % 3][: 10 + n]}
            for n in range(count)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    values = {
        "run_dir": "unused",
        "data": {
            "train": {"kind": "file", "path": str(folder / "train.jsonl")},
            "validation": {"kind": "file", "path": str(folder / "held_out.jsonl")},
            "template": "chat",
            "max_length": 64,
            "max_prompt_length": 48,
            "cache_dir": str(folder / "cache"),
        },
        "teacher": {"path": str(teacher)},
        "student": {"kind": "layers", "layers": [0, 2]},
        "distill": {"focus": {"kind": "latf", "ema": 0.5}},
        "optimizer": {"learning_rate": 5e-3},
        "training": {"steps": STEPS, "batch_rows": 2},
        "checkpoint": {"every_steps": 1, "keep_last": 1, "keep_best": 0},
        "evaluation": {
            "batch_rows": 2,
            "generate_examples": 2,
            "generation": {"max_new_tokens": 4, "batch_size": 2},
        },
        "logging": {"tensorboard": False},
    }
    file = folder / "base.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.fixture
def study(base, tmp_path):
    def make(**changes):
        return make_study(changes.pop("base", base), tmp_path / "study", **changes)

    return make
