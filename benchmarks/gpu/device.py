"""The device of this process: what it is, how fast its products are, what it has held."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.gpu.options import Options, Row

GIB = 2**30


def cpu() -> jax.Device:
    """The CPU, whose numbers are the reference."""
    return jax.local_devices(backend="cpu")[0]


def describe() -> dict[str, Any]:
    """The device and the versions that numbers are of."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
        "memory_gib": stats.get("bytes_limit", 0) / GIB or None,
    }


def peak_gib() -> float | None:
    """The most memory that arrays and programs of this process have held; None on a CPU."""
    held = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None if held is None else held / GIB


def median_seconds(run: Callable[[], Any], times: int, rounds: int = 3) -> float:
    """Seconds of one call: called `times` times without waiting, as a training loop does; the
    median over rounds. The first call is not timed.
    """
    jax.block_until_ready(run())
    found = []
    for _ in range(rounds):
        start, last = time.perf_counter(), None
        for _ in range(times):
            last = run()
        jax.block_until_ready(last)
        found.append((time.perf_counter() - start) / times)
    return statistics.median(found)


def product(options: Options) -> Iterator[Row]:
    """The speed of one large product in bfloat16, summed in float32: what MFU is a share of."""
    size = 512 if options.small else 8192
    left, right = (jax.random.normal(jax.random.key(i), (size, size), jnp.bfloat16) for i in (0, 1))
    multiply = jax.jit(lambda a, b: a @ b)
    seconds = median_seconds(lambda: multiply(left, right), 10, rounds=5)
    yield {
        "what": f"product of {size} × {size}, bfloat16",
        "seconds": seconds,
        "operations_per_second": 2.0 * size**3 / seconds,
    }
    yield {"what": "device", **describe()}


def product_speed(options: Options) -> float | None:
    """Operations a second of the measured product; None if it was not measured."""
    found = [row for row in options.rows_of("product") if "operations_per_second" in row]
    return found[0]["operations_per_second"] if found else None
