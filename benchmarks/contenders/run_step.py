"""Our train step from the settings of a run, in the precision of the setting: `plain`, `adakd`."""

from collections.abc import Callable

import jax

from benchmarks.cases import Batch, Setting
from benchmarks.run_step import RunStep, on_device, run_settings


def make_step(kind: str, batches: list[Batch], setting: Setting) -> Callable[[Batch], float]:
    """One training step as a function of a batch, compiled for each shape among `batches`."""
    steps: dict[tuple[int, ...], RunStep] = {}
    for batch in batches:
        if batch.tokens.shape not in steps:
            config = run_settings(setting, kind, *batch.tokens.shape)
            made = next(iter(steps.values())).teacher if steps else None
            steps[batch.tokens.shape] = RunStep(config, made)
    state = next(iter(steps.values())).start()

    def step(batch: Batch) -> float:
        nonlocal state
        state, metrics = steps[batch.tokens.shape].run(state, on_device(batch))
        return float(metrics["loss"])

    return step


def peak_bytes() -> int | None:
    """The most that this process has held on its device; None on a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
