"""Our steps and answers beside those of torch and transformers, in turns, on the same device."""

import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.cases import Batch, Setting, full_rows, save_batches
from benchmarks.gpu.options import Options, Row, attempt
from benchmarks.gpu.pairs import precision, qwen2_pair, smollm2_pair
from benchmarks.turns import Entry, take_turns

# Several processes share the device: none takes most of its memory at its start.
SHARED = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "JAX_COMPILATION_CACHE_DIR": os.path.expanduser("~/.cache/adakd_jax/benchmarks"),
}
OURS = "ours"
NO_TORCH = "torch is not installed"
PROMPT = 64


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _device(options: Options) -> str:
    return "cpu" if options.small else "cuda"


def _leave_the_device() -> None:
    """What this process itself computes is computed on the CPU: the device is the contenders'."""
    jax.config.update("jax_platforms", "cpu")


def torch_steps(options: Options) -> Iterator[Row]:
    """The SmolLM2 pair, Dolly's rows, then full ones: ours, and an ordinary torch loop."""
    _leave_the_device()
    rows, length = (2, 32) if options.small else (16, 512)
    ours, torch = (smollm2_pair(options.small, place) for place in ("cpu", _device(options)))
    vocabulary: Any = ours.student["vocab_size"]
    full = [full_rows(rows, length, vocabulary=vocabulary)]
    losses = {
        "torch, plain, eager": "reverse_kl",
        "torch, plain, compiled": "reverse_kl compile",
        "torch, AdaKD r = 0.75, eager": "adakd",
    }
    if _has("trl"):
        losses["torch, TRL's GKD loss, eager"] = "trl_gkd"
    with tempfile.TemporaryDirectory() as work:
        yield from _dolly(options, Path(work), ours, torch)
        file = _saved(Path(work) / "full" / "batches.npz", full)
        entries = [
            Entry(f"{OURS}, plain", "run_step", "plain", file, ours),
            Entry(f"{OURS}, AdaKD r = 1", "run_step", "adakd", file, ours),
            *(Entry(t, "torch_loop", kind, file, torch) for t, kind in losses.items()),
        ]
        yield from _compared(f"SmolLM2, {rows} × {length}", entries, [full] * len(entries), options)
        if not _has("trl"):
            yield {"what": "TRL's GKD loss", "error": "trl is not installed"}


def _dolly(options: Options, work: Path, ours: Setting, torch: Setting) -> Iterator[Row]:
    """Dolly rows: ours packed; torch's one document a row, padded to the longest of its batch."""
    what = "SmolLM2, Dolly rows"
    if options.rows is None:
        yield {"what": what, "error": "no rows; --rows FILE gives a JSONL of Dolly"}
        return
    from benchmarks.rows import dolly_batches

    rows, length, steps = (2, 128, 2) if options.small else (16, 512, 4)
    made: dict[str, list[Batch]] = {}

    def read() -> Row:
        packed, _, longest = dolly_batches(
            options.rows or Path(), options.teacher, rows, length, steps
        )
        made.update(packed=packed, longest=longest)
        return {}

    failed = attempt(what, read)
    if "error" in failed:
        yield failed
        return
    if options.small:  # the tiny pair knows fewer tokens than the rows have
        made = {name: [_few_tokens(b) for b in batches] for name, batches in made.items()}
    packed, longest = (
        _saved(work / name / "batches.npz", made[name]) for name in ("packed", "longest")
    )
    entries = [
        Entry(f"{OURS}, plain", "run_step", "plain", packed, ours),
        Entry("torch, plain, eager", "torch_loop", "reverse_kl", longest, torch),
        Entry("torch, plain, compiled", "torch_loop", "reverse_kl compile", longest, torch),
    ]
    yield from _compared(what, entries, [made["packed"], *[made["longest"]] * 2], options)


def _few_tokens(batch: Batch) -> Batch:
    labels = np.where(batch.labels < 0, batch.labels, batch.labels % 320)
    return batch._replace(tokens=batch.tokens % 320, labels=labels)


def torch_large(options: Options) -> Iterator[Row]:
    """Qwen2-7B → 1.5B, few rows: dense logits of 152 thousand tokens are large."""
    rows, length = (2, 32) if options.small else (4, 512)
    for lora in (True, False):
        ours, torch = (qwen2_pair(options.small, lora, d) for d in ("cpu", _device(options)))
        vocabulary: Any = ours.student["vocab_size"]
        full = [full_rows(rows, length, vocabulary=vocabulary)]
        what = f"Qwen2, {'LoRA' if lora else 'all weights'}, {rows} × {length}"
        if lora and not _has("peft"):
            yield {"what": f"{what}, torch", "error": "peft is not installed"}
            continue
        # One after the other: two pairs of this size do not fit on one device together.
        with tempfile.TemporaryDirectory() as work:
            file = _saved(Path(work) / "batches.npz", full)
            entries = (
                Entry(f"{OURS}, plain", "run_step", "plain", file, ours),
                Entry("torch, plain, eager", "torch_loop", "reverse_kl", file, torch),
            )
            yield from _compared(what, entries, [full] * 2, options, together=False)


def generation(options: Options) -> Iterator[Row]:
    """Greedy answers of the real teacher, batches of 1, 16, 128."""
    from adakd_jax import load_pretrained, save_pretrained

    _leave_the_device()
    sizes, new_tokens = ((1, 2), 8) if options.small else ((1, 16, 128), 128)
    folder = options.out / "teacher"
    exported = attempt(
        "export of the teacher",
        lambda: (
            {}
            if folder.exists()
            else save_pretrained(load_pretrained(options.teacher), folder) and {}
        ),
    )
    if "error" in exported:
        yield exported
        return
    model = {"path": str(folder.resolve())}
    dtype = precision(options.small)
    rng = np.random.default_rng(0)
    for rows in sizes:
        prompts = rng.integers(1000, 40_000, (rows, PROMPT), dtype=np.int32)
        answers = np.zeros((rows, new_tokens), np.int32)  # only counted
        batches = [Batch(prompts, answers, np.zeros_like(prompts), np.ones_like(prompts))]
        with tempfile.TemporaryDirectory() as work:
            file = _saved(Path(work) / "batches.npz", batches)
            entries = [
                Entry(OURS, "generation_ours", "greedy", file, Setting(model, {}, dtype)),
                Entry(
                    "torch", "generation_torch", "greedy", file,
                    Setting(model, {}, dtype, _device(options)),
                ),
            ]  # fmt: skip
            yield from _compared(f"generation, batch {rows}", entries, [batches] * 2, options)


def _compared(
    what: str,
    entries: Sequence[Entry],
    batches: Sequence[list[Batch]],
    options: Options,
    *,
    together: bool = True,
) -> Iterator[Row]:
    """A row for each contender: tokens a second, and how that of ours compares with it."""
    present = [e for e in entries if _has("torch") or "torch" not in e.module]
    steps = max(1 if options.small else 3, *(len(each) for each in batches))
    groups = [present] if together else [[entry] for entry in present]
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        found |= take_turns(group, steps, 2 if options.small else 3, SHARED)
    rates = {
        entry.title: _tokens(batch) / len(batch) / found[entry.title]["seconds"]
        for entry, batch in zip(entries, batches, strict=True)
        if "seconds" in found.get(entry.title, {})
    }
    base = rates.get(entries[0].title)
    for entry in entries:
        row: Row = {"what": f"{what}, {entry.title}", **found.get(entry.title, {"error": NO_TORCH})}
        row.pop("seconds_by_round", None)
        if entry.title in rates:
            row["tokens_per_second"] = rates[entry.title]
            if base is not None:
                row["ours_over_this"] = base / rates[entry.title]
        yield {name: value for name, value in row.items() if value is not None}


def _tokens(batches: Sequence[Batch]) -> int:
    """Tokens that exist, padding left out; of answers, those that are written."""
    if batches[0].labels.shape != batches[0].tokens.shape:
        return sum(batch.response_tokens for batch in batches)
    return sum(int((batch.segments > 0).sum()) for batch in batches)


def _saved(file: Path, batches: list[Batch]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_batches(file, batches)
    return file
