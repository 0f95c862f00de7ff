"""Our train step, as `python -m adakd_jax.train` compiles it."""

import dataclasses
from collections.abc import Callable

import jax

from adakd_jax.axes import TokenBatch
from adakd_jax.config import DistillConfig, OptimizerConfig, StudentLayers
from adakd_jax.models.decoder import abstract_decoder, random_params
from adakd_jax.models.families import decoder_config
from adakd_jax.training.optimizer import build_optimizer, learning_rate_schedule
from adakd_jax.training.state import init_state
from adakd_jax.training.step import StepParts, make_train_step
from benchmarks.cases import LEARNING_RATE, STUDENT_LAYERS, TEACHER_LAYERS, Batch, llama_config

STEPS = 1000  # of the learning-rate schedule

PLAIN = {"score": {"kind": "uniform"}, "focus": {"kind": "all"}, "temperature": {"kind": "fixed"}}


def distill_config(kind: str) -> DistillConfig:
    """The loss called `reverse_kl`, or `adakd RATIO` with an optional ` kept`."""
    words = kind.split()
    if words[0] == "reverse_kl":
        return DistillConfig.model_validate(PLAIN)
    focus = {"kind": "top_ratio", "ratio": float(words[1])}
    keep = "bfloat16" if words[-1] == "kept" else "none"
    return DistillConfig.model_validate({"focus": focus, "keep_logits": keep})


def make_step(kind: str, batches: list[Batch]) -> Callable[[Batch], float]:
    """A train step; `kind` is `dense …` or `chunked …`, then the loss."""
    how, _, loss = kind.partition(" ")
    distill = distill_config(loss)
    optimizer = OptimizerConfig(learning_rate=LEARNING_RATE, schedule="constant", clip_norm=None)
    teacher, student = (
        decoder_config(llama_config(layers)) for layers in (TEACHER_LAYERS, STUDENT_LAYERS)
    )
    student = dataclasses.replace(student, remat=StudentLayers.model_fields["remat"].default)
    parts = StepParts(
        distill=distill,
        optimizer=build_optimizer(optimizer, distill, STEPS),
        schedule=learning_rate_schedule(optimizer, STEPS),
        student=abstract_decoder(student)[0],
        teacher=abstract_decoder(teacher)[0],
        total_steps=STEPS,
        whole_logits=how == "dense",
    )
    train_step = make_train_step(parts)
    teacher_params = random_params(teacher, jax.random.key(0))
    state = init_state(random_params(student, jax.random.key(1)), parts.optimizer, seed=0)

    def step(batch: Batch) -> float:
        nonlocal state
        one = TokenBatch(*(array[None] for array in batch[:4]))
        state, metrics = train_step(state, teacher_params, one)
        jax.block_until_ready(state)
        return float(metrics["loss"])

    return step
