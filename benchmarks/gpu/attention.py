"""The attention that a run chooses on the device, against XLA's formula: values, gradients, memory,
time.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adakd_jax.models.attention import attention as attend
from benchmarks.gpu.device import median_seconds
from benchmarks.gpu.logits import distance
from benchmarks.gpu.options import Options, Row, attempt

LIMIT = 2e-2  # bfloat16
MIB = 2**20


class Shape(NamedTuple):
    """One case: documents of a row, head size, window, soft cap."""

    documents: int = 1
    head_dim: int = 64
    window: int | None = None
    soft_cap: float | None = None


CASES = {
    "one document": Shape(),
    "packed documents": Shape(documents=4),
    "packed documents, window": Shape(documents=4, window=33),
    "packed documents, heads of 128": Shape(documents=4, head_dim=128),
    "packed documents, heads of 256": Shape(documents=4, head_dim=256),
    "packed documents, heads of 256, window, soft cap": Shape(4, 256, 33, 50.0),
}


def attention(options: Options) -> Iterator[Row]:
    """Each case, in bfloat16."""
    for name, shape in CASES.items():
        yield attempt(name, functools.partial(_compared, shape, options.small))


def _compared(shape: Shape, small: bool) -> Row:
    rows, length, heads, kv_heads = (1, 64, 4, 2) if small else (4, 2048, 8, 2)
    keys = jax.random.split(jax.random.key(0), 3)
    sizes = [(rows, length, count, shape.head_dim) for count in (heads, kv_heads, kv_heads)]
    query, key, value = (
        jax.random.normal(k, size, jnp.bfloat16) for k, size in zip(keys, sizes, strict=True)
    )
    borders = np.linspace(0, length, shape.documents + 1).astype(int)
    segments = np.repeat(np.arange(1, shape.documents + 1), np.diff(borders))
    segments = jnp.asarray(np.broadcast_to(segments, (rows, length)), jnp.int32)

    def total(how: Any, query: Any, key: Any, value: Any) -> Any:
        out = attend(
            query, key, value, query_segments=segments, key_segments=segments,
            window=shape.window, soft_cap=shape.soft_cap, scale=shape.head_dim**-0.5,
            implementation=how,
        )  # fmt: skip
        return jnp.sum(out.astype(jnp.float32) ** 2), out

    programs = [
        jax.jit(jax.value_and_grad(functools.partial(total, how), (0, 1, 2), has_aux=True))
        .lower(query, key, value)
        .compile()
        for how in (None, "xla")
    ]
    (found, reference) = (program(query, key, value) for program in programs)
    row: Row = {"kernel": _kernel(programs[0].as_text() or "")}
    row["output"] = distance(found[0][1], reference[0][1])
    row["gradients"] = max(distance(a, b) for a, b in zip(found[1], reference[1], strict=True))
    for name, program in zip(("", "xla_"), programs, strict=True):
        row[f"{name}mib"] = program.memory_analysis().temp_size_in_bytes / MIB
        row[f"{name}ms"] = 1e3 * median_seconds(lambda p=program: p(query, key, value), 5)
    return row | {"passed": max(row["output"], row["gradients"]) <= LIMIT}


def _kernel(program: str) -> str:
    """What computes the scores, by the calls in a compiled program."""
    marks = {"__cudnn$fmha": "cuDNN", "__gpu$xla.gpu.triton": "Triton", "mosaic": "Mosaic"}
    return next((name for mark, name in marks.items() if mark in program), "XLA")
