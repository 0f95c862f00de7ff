"""The chunked loss and its gradients against dense logits, on the device."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from adakd_jax.axes import Head
from adakd_jax.config import DistillConfig
from adakd_jax.distill import Signals, vocab_distillation_loss
from adakd_jax.training.forward import whole_logits_loss
from benchmarks.gpu.logits import distance
from benchmarks.gpu.options import Options, Row, attempt
from benchmarks.run_step import PLAIN

# bfloat16: near ties are ranked otherwise, so that a few tokens of AdaKD's share are others.
LIMITS = {"float32": 1e-4, "bfloat16": 5e-2}
METHODS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "AdaKD r = 0.75": {"focus": {"kind": "top_ratio", "ratio": 0.75}},
    "forward KL, EGAD's curriculum": {
        "score": {"kind": "uniform"},
        "focus": {"kind": "curriculum"},
        "temperature": {"kind": "entropy"},
        "divergence": {"kind": "forward_kl"},
    },
}


def loss(options: Options) -> Iterator[Row]:
    """Each method in both precisions."""
    for name, settings in METHODS.items():
        for dtype in LIMITS:
            yield attempt(
                f"{name}, {dtype}", functools.partial(_compared, settings, dtype, options.small)
            )


def _compared(settings: dict[str, Any], dtype: str, small: bool) -> Row:
    tokens, width, vocabulary = (96, 32, 500) if small else (4096, 576, 49_152)
    keys = jax.random.split(jax.random.key(0), 5)
    hidden = [jax.random.normal(key, (tokens, width), jnp.dtype(dtype)) for key in keys[:2]]
    heads = [
        (width**-0.5 * 2 * jax.random.normal(key, (vocabulary, width))).astype(dtype)
        for key in keys[2:4]
    ]
    labels = jax.random.randint(keys[4], (tokens,), 0, vocabulary, jnp.int32)
    labels = labels.at[: tokens // 4].set(-100)
    config = DistillConfig.model_validate(settings)
    signals = Signals(jnp.float32(0.75), jnp.float32(0.5))

    def value(how: Any, student: jax.Array, head: jax.Array) -> jax.Array:
        own, other = Head(head, vocabulary), Head(heads[1], vocabulary)
        return how(config, student, own, hidden[1], other, labels, signals)[0]

    with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
        results = [
            jax.jit(jax.value_and_grad(functools.partial(value, how), (0, 1)))(hidden[0], heads[0])
            for how in (vocab_distillation_loss, whole_logits_loss)
        ]
    (found, found_grads), (reference, reference_grads) = results
    row = {
        "loss": abs(float(found) / float(reference) - 1.0),
        "hidden_gradient": distance(found_grads[0], reference_grads[0]),
        "head_gradient": distance(found_grads[1], reference_grads[1]),
    }
    return row | {"passed": max(row.values()) <= LIMITS[dtype]}
