"""Whole train steps, plain and AdaKD in turns: seconds, tokens a second, MFU, memory."""

import functools
import gc
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from adakd_jax.config.plan import PlanConfig
from adakd_jax.planning.flops import head_operations, head_work
from adakd_jax.planning.work import step_operations
from adakd_jax.training.dry_run import run_shapes
from benchmarks.cases import Setting, full_rows
from benchmarks.gpu.device import GIB, peak_gib, product_speed
from benchmarks.gpu.options import Options, Row, attempt
from benchmarks.gpu.pairs import qwen2_pair, smollm2_pair
from benchmarks.run_step import RunStep, on_device, run_settings

# What is timed, in turns: method, and the share of tokens that AdaKD keeps; one program serves all
# shares, as LATF's is traced.
ENTRIES: dict[str, tuple[str, float | None]] = {
    "plain": ("plain", None),
    "AdaKD r = 1": ("adakd", 1.0),
    "AdaKD r = 0.75": ("adakd", 0.75),
    "AdaKD r = 0.5": ("adakd", 0.5),
}
ROUNDS = 3


def steps(options: Options) -> Iterator[Row]:
    """The SmolLM2 pair, rows of 512; the middle sizes of a batch last."""
    sizes, length = ((2,), 32) if options.small else ((8, 32, 128, 16, 64), 512)
    for rows in sizes:
        yield from _timed(options, "SmolLM2", smollm2_pair(options.small), rows, length)


def large(options: Options) -> Iterator[Row]:
    """Qwen2-7B → 1.5B, with adapters and with all weights."""
    length = 32 if options.small else 512
    for lora, rows in ((True, 2), (False, 2)) if options.small else ((True, 16), (False, 8)):
        name = "Qwen2, LoRA" if lora else "Qwen2, all weights"
        yield from _timed(options, name, qwen2_pair(options.small, lora), rows, length)
        gc.collect()


def _timed(options: Options, name: str, pair: Setting, rows: int, length: int) -> Iterator[Row]:
    """A row for each entry that could be compiled and run."""
    what = f"{name}, {rows} × {length}"
    programs: dict[str, RunStep] = {}
    tried = attempt(what, lambda: programs.update(_compiled(pair, rows, length)) or {})
    if "error" in tried:
        yield tried
        return
    vocabulary: Any = min(model["vocab_size"] for model in (pair.teacher, pair.student))
    batch = on_device(full_rows(rows, length, vocabulary=vocabulary))
    times: dict[str, list[float]] = {entry: [] for entry in ENTRIES}
    peaks: dict[str, float | None] = {}
    for _ in range(ROUNDS):
        for entry, (method, ratio) in ENTRIES.items():
            timed = attempt(
                f"{what}, {entry}",
                lambda m=method, r=ratio: {"seconds": _seconds(programs[m], r, batch, options)},
            )
            if "error" in timed:
                yield timed
                return
            times[entry].append(timed["seconds"])
            peaks.setdefault(entry, peak_gib())
    peak = product_speed(options)
    for entry, (method, _) in ENTRIES.items():
        yield _row(what, entry, programs[method], times, peaks[entry], peak)


def _compiled(pair: Setting, rows: int, length: int) -> dict[str, RunStep]:
    """Both programs, compiled at the same time, with one teacher."""
    methods = ("plain", "adakd")
    with ThreadPoolExecutor(len(methods)) as pool:
        made = {
            method: pool.submit(RunStep, run_settings(pair, method, rows, length), teacher=())
            for method in methods
        }
        programs = {method: future.result() for method, future in made.items()}
    teacher = programs["plain"].make_teacher()
    for program in programs.values():
        program.teacher = teacher
    return programs


def _seconds(program: RunStep, ratio: float | None, batch: Any, options: Options) -> float:
    """Seconds of a step, of several in a row without waiting between them."""
    state = program.start(ratio)
    state, metrics = program.run(state, batch)
    jax.block_until_ready(metrics)
    times = 2 if options.small else 5
    start = time.perf_counter()
    for _ in range(times):
        state, metrics = program.run(state, batch)
    jax.block_until_ready((state, metrics))
    seconds = (time.perf_counter() - start) / times
    loss = float(metrics["loss"])
    if loss != loss or not float(metrics["accepted"]):
        raise ValueError(f"a step was not accepted: loss {loss}")
    return seconds


def _operations_of_row(config: PlanConfig, ratio: float | None) -> float:
    """Operations that the result of a full row needs, with a share of the tokens in the loss."""
    shapes = run_shapes(config)
    assert shapes.teacher is not None
    widths = shapes.student.embed_dim, shapes.teacher.embed_dim
    vocabulary = min(shapes.student.vocab_size, shapes.teacher.vocab_size)
    work = head_work(config.distill, trains_head=shapes.student.lora is None)
    whole = head_operations(work, *widths, vocabulary)
    part = head_operations(work._replace(keep_ratio=ratio or 1.0), *widths, vocabulary)
    saved = config.data.max_length * (whole - part)
    one = config.model_copy(
        update={"training": config.training.model_copy(update={"batch_rows": 1})}
    )
    return _all_kept(one.model_dump_json()) - saved


@functools.cache
def _all_kept(config: str) -> float:
    return step_operations(PlanConfig.model_validate_json(config), (1, 1)).needed


def _row(
    what: str,
    entry: str,
    program: RunStep,
    times: dict[str, list[float]],
    peak: float | None,
    speed: float | None,
) -> Row:
    seconds = statistics.median(times[entry])
    ratios = [own / plain for own, plain in zip(times[entry], times["plain"], strict=True)]
    rows = program.config.training.batch_rows or 1
    row: Row = {
        "what": f"{what}, {entry}",
        "seconds": seconds,
        "tokens_per_second": rows * program.config.data.max_length / seconds,
        "over_plain": statistics.median(ratios),
        "program_gib": program.program_bytes / GIB,
    }
    if speed is not None:
        ratio = ENTRIES[entry][1]
        row["mfu"] = rows * _operations_of_row(program.config, ratio) / seconds / speed
    if peak is not None:
        row["peak_gib"] = peak
    return row
