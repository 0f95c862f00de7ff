"""The machine's peak: one large float32 matrix product, as XLA does it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.cases import Batch

SIZE = 4096
OPERATIONS = 2.0 * SIZE**3


def make_step(kind: str, batches: list[Batch]) -> Callable[[Batch], float]:
    """A product of two SIZE × SIZE matrices; `kind` is a dtype."""
    matrix = jax.random.normal(jax.random.key(0), (SIZE, SIZE), jnp.dtype(kind))
    multiply = jax.jit(lambda a: a @ a)  # nothing that a compiler could fuse into the product
    return lambda batch: float(multiply(matrix)[0, 0])
