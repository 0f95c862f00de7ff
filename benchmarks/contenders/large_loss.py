"""The loss alone at the widths of Qwen2-7B and 1.5B, from hidden states to gradients, float32."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from adakd_jax.axes import Head
from adakd_jax.config import DistillConfig
from adakd_jax.distill import Signals, vocab_distillation_loss
from benchmarks.cases import Batch
from benchmarks.flops import LARGE_STUDENT, LARGE_TEACHER, LARGE_VOCABULARY

TOKENS = 1024  # a multiple of the chunk size at every ratio
PLAIN = {"score": {"kind": "uniform"}, "focus": {"kind": "all"}, "temperature": {"kind": "fixed"}}


def settings(kind: str) -> DistillConfig:
    """Loss of a kind: `plain`, or `adakd RATIO`, or `adakd RATIO kept`."""
    name, *options = kind.split()
    if name == "plain":
        return DistillConfig.model_validate(PLAIN)
    focus = {"kind": "top_ratio", "ratio": float(options[0])}
    keep = "float32" if "kept" in options else "none"
    return DistillConfig.model_validate({"focus": focus, "keep_logits": keep})


def make_step(kind: str, batches: list[Batch]) -> Callable[[Batch], float]:
    """Loss and gradients of `TOKENS` tokens."""
    widths, size = (LARGE_STUDENT.width, LARGE_TEACHER.width), LARGE_VOCABULARY
    keys = jax.random.split(jax.random.key(0), 5)
    hidden = [
        jax.random.normal(key, (TOKENS, width)) for key, width in zip(keys, widths, strict=False)
    ]
    weights = [
        0.05 * jax.random.normal(key, (size, width))
        for key, width in zip(keys[2:], widths, strict=False)
    ]
    labels = jax.random.randint(keys[4], (TOKENS,), 0, size, jnp.int32)
    config, signals = settings(kind), Signals(jnp.float32(1.0), jnp.float32(0.5))

    def value(student: jax.Array, weight: jax.Array, teacher: jax.Array, other: jax.Array):
        heads = Head(weight, size), Head(other, size)
        return vocab_distillation_loss(
            config, student, heads[0], teacher, heads[1], labels, signals
        )[0]

    run = jax.jit(jax.value_and_grad(value, (0, 1)))

    def step(batch: Batch) -> float:
        loss, gradients = run(hidden[0], weights[0], hidden[1], weights[1])
        jax.block_until_ready(gradients)
        return float(loss)

    return step
