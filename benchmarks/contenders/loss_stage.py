"""The loss alone: AdaKD at r = 0.75, from hidden states and output embeddings to gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from adakd_jax.axes import Head
from adakd_jax.config import DistillConfig
from adakd_jax.distill import Signals, vocab_distillation_loss
from adakd_jax.training.forward import whole_logits_loss
from benchmarks.cases import WIDTH, Batch

KEEP_RATIO = 0.75
LOSSES: dict[str, Any] = {"dense": whole_logits_loss, "chunked": vocab_distillation_loss}


def make_step(kind: str, batches: list[Batch]) -> Callable[[Batch], float]:
    """Loss and gradients; `kind` is `dense` or `chunked`, tokens, vocabulary, and perhaps the
    chunk size.
    """
    how, tokens, vocabulary, *chunk = kind.split()
    shape, size = (int(tokens), WIDTH), int(vocabulary)
    keys = jax.random.split(jax.random.key(0), 5)
    student, teacher = (jax.random.normal(key, shape) for key in keys[:2])
    weights = [0.1 * jax.random.normal(key, (size, WIDTH)) for key in keys[2:4]]
    labels = jax.random.randint(keys[4], shape[:1], 0, size, jnp.int32)
    config = DistillConfig.model_validate(
        {
            "focus": {"kind": "top_ratio", "ratio": KEEP_RATIO},
            "chunk_size": int(chunk[0]) if chunk else None,
        }
    )
    signals = Signals(jnp.float32(KEEP_RATIO), jnp.float32(0.5))

    def value(student: jax.Array, weight: jax.Array, teacher: jax.Array, other: jax.Array):
        heads = Head(weight, size), Head(other, size)
        return LOSSES[how](config, student, heads[0], teacher, heads[1], labels, signals)[0]

    run = jax.jit(jax.value_and_grad(value, (0, 1)))

    def step(batch: Batch) -> float:
        loss, gradients = run(student, weights[0], teacher, weights[1])
        jax.block_until_ready(gradients)
        return float(loss)

    return step
