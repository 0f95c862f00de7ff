"""A tiny teacher and student, batches for them, and the settings of a whole run."""

import json
import signal
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx

from adakd_jax.axes import IGNORE, TokenBatch
from adakd_jax.config import DistillConfig, OptimizerConfig, RunConfig
from adakd_jax.distill import mapped_layers
from adakd_jax.hf.export import save_pretrained
from adakd_jax.models.decoder import abstract_decoder, random_params
from adakd_jax.models.families import decoder_config
from adakd_jax.training.learned import build_learner, initial_learned
from adakd_jax.training.optimizer import build_optimizer, learning_rate_schedule
from adakd_jax.training.records import MetricsLog
from adakd_jax.training.state import TrainState, init_state
from adakd_jax.training.step import StepParts
from tests.hf.tiny import SENTENCES, tiny_teacher
from tests.training.tiny_run import STEPS

VOCAB, LENGTH = 61, 24


def tiny_config(layers: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": VOCAB,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "initializer_range": 0.3,
    }


class Pair(NamedTuple):
    """A tiny teacher and student."""

    teacher: nnx.GraphDef
    teacher_params: Any
    student: nnx.GraphDef
    student_params: Any

    def parts(
        self, distill: DistillConfig, optimizer: OptimizerConfig, steps: int = 20
    ) -> StepParts:
        schedule = learning_rate_schedule(optimizer, steps)
        count = distill.features.layers
        return StepParts(
            distill=distill,
            optimizer=build_optimizer(optimizer, distill, steps),
            schedule=schedule,
            student=self.student,
            teacher=self.teacher if distill.has_teacher else None,
            total_steps=steps,
            learner=build_learner(distill, optimizer, schedule),
            layers=mapped_layers(count, 2, 3) if distill.has_features else (),
            average_decay=optimizer.average_decay,
        )

    def state(self, parts: StepParts) -> TrainState:
        return init_state(
            jax.tree.map(lambda x: x.copy(), self.student_params),
            parts.optimizer,
            seed=0,
            average=parts.average_decay is not None,
            learned=initial_learned(parts.distill, 16, 16, jax.random.key(0)),
            learner=parts.learner,
        )

    def teaching(self, parts: StepParts) -> Any:
        """What the train step is given besides its state."""
        return None if parts.teacher is None else self.teacher_params


@pytest.fixture(scope="session")
def pair() -> Pair:
    teacher, student = (decoder_config(tiny_config(layers)) for layers in (3, 2))
    return Pair(
        abstract_decoder(teacher)[0],
        random_params(teacher, jax.random.key(1)),
        abstract_decoder(student)[0],
        random_params(student, jax.random.key(2)),
    )


def random_batch(seed: int, micro_batches: int = 1, rows: int = 2) -> TokenBatch:
    """Two documents a row, the second half of each a response, then padding."""
    rng = np.random.default_rng(seed)
    shape = (micro_batches, rows, LENGTH)
    tokens = rng.integers(1, VOCAB, shape, dtype=np.int32)
    segments = np.repeat(np.array([1] * 10 + [2] * 8 + [0] * 6, np.int32)[None, None], 1, 0)
    segments = np.broadcast_to(segments, shape).copy()
    positions = np.broadcast_to(
        np.array([*range(10), *range(8), *([0] * 6)], np.int32), shape
    ).copy()
    following = np.roll(tokens, -1, axis=-1)
    target = np.isin(np.arange(LENGTH), [5, 6, 7, 8, 13, 14, 15, 16])
    labels = np.where(target & (rng.random(shape) < 0.8), following, IGNORE).astype(np.int32)
    return TokenBatch(np.where(segments > 0, tokens, 0), labels, positions, segments)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_pretrained(tiny_teacher(), tmp_path_factory.mktemp("teacher") / "model")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = [
        {"instruction": f"Say it {n} times.", "output": SENTENCES[n % 3][: 10 + n]}
        for n in range(24)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def settings_of_a_run(run_dir, teacher, rows, cache, /, **changes):
    """Settings of a whole run of the tiny pair."""
    values = {
        "run_dir": str(run_dir),
        "seed": 3,
        "data": {
            "train": {"kind": "file", "path": str(rows)},
            "validation_fraction": 0.25,
            "template": "chat",
            "max_length": 64,
            "max_prompt_length": 48,
            "cache_dir": str(cache),
        },
        "teacher": {"path": str(teacher)},
        "student": {"kind": "layers", "layers": [0, 2]},
        "distill": {"focus": {"kind": "latf", "ema": 0.5, "tolerance": 0.01}},
        "optimizer": {"learning_rate": 5e-3, "average_decay": 0.5},
        "training": {"steps": STEPS, "batch_rows": 2, "max_bad_steps": 2},
        "checkpoint": {"every_steps": 2},
        "evaluation": {
            "every_steps": 3,
            "batch_rows": 2,
            "generate_examples": 2,
            "show_examples": 1,
            "token_snapshots": 0,
            "generation": {"max_new_tokens": 4, "batch_size": 2},
        },
        "logging": {"tensorboard": False},
    }
    return RunConfig.model_validate(values | changes)


@pytest.fixture(scope="module")
def make_settings(teacher, rows, tmp_path_factory):
    """Settings of a whole run of the tiny pair, by run folder and changes."""
    cache = tmp_path_factory.getbasetemp() / "data_cache"

    return lambda run_dir, **changes: settings_of_a_run(run_dir, teacher, rows, cache, **changes)


@pytest.fixture
def settings(make_settings, tmp_path):
    return lambda run_dir="run", **changes: make_settings(tmp_path / run_dir, **changes)


@pytest.fixture
def stop_after(monkeypatch):
    """Sends this process a signal while it records a step, once."""

    def stop(step, number):
        write, sent = MetricsLog.write, []

        def write_and_stop(self, done, values, kind="train"):
            write(self, done, values, kind)
            if done == step and not sent:
                sent.append(done)
                signal.raise_signal(number)

        monkeypatch.setattr(MetricsLog, "write", write_and_stop)

    return stop
