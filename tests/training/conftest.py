"""A tiny teacher and student, and batches for them."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx

from adakd_jax.axes import IGNORE, TokenBatch
from adakd_jax.config import DistillConfig, OptimizerConfig
from adakd_jax.models.decoder import abstract_decoder, random_params
from adakd_jax.models.families import decoder_config
from adakd_jax.training.optimizer import build_optimizer, learning_rate_schedule
from adakd_jax.training.state import TrainState, init_state
from adakd_jax.training.step import StepParts

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
        return StepParts(
            distill=distill,
            optimizer=build_optimizer(optimizer, distill, steps),
            schedule=learning_rate_schedule(optimizer, steps),
            student=self.student,
            teacher=self.teacher,
            total_steps=steps,
            average_decay=optimizer.average_decay,
        )

    def state(self, parts: StepParts) -> TrainState:
        params = jax.tree.map(lambda x: x.copy(), self.student_params)
        return init_state(params, parts.optimizer, seed=0, average=parts.average_decay is not None)


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
