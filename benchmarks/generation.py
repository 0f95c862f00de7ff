"""Generation: greedy answers of the real teacher, ours beside `transformers`' `generate`."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.cases import EXPORTED_TEACHER, VOCABULARY, Batch
from benchmarks.results import Results
from benchmarks.suite import OURS, TORCH, Case, Contender

PROMPT, NEW_TOKENS = 64, 128
GENERATORS = (
    Contender("ours", OURS, "generation_ours", "greedy", None),
    Contender("torch + transformers, generate", TORCH, "generation_torch", "greedy", None),
)


def _case(rows: int) -> Case:
    rng = np.random.default_rng(0)
    prompts = rng.integers(1000, VOCABULARY - 1000, (rows, PROMPT), dtype=np.int32)
    answers = np.zeros((rows, NEW_TOKENS), np.int32)  # only counted
    batches = [Batch(prompts, answers, np.zeros_like(prompts), np.ones_like(prompts))]
    return Case(f"generate-{rows}", f"Batch of {rows}", batches, batches)


GENERATION = tuple(_case(rows) for rows in (1, 16, 50))


def export_teacher(teacher: str) -> Path:
    """The teacher as a folder that `transformers` loads, in float32; made once."""
    if not EXPORTED_TEACHER.exists():
        from adakd_jax import load_pretrained, save_pretrained

        save_pretrained(load_pretrained(teacher), EXPORTED_TEACHER)
    return EXPORTED_TEACHER


def generation_table(results: Results) -> Iterator[str]:
    """New tokens a second of both, and their ratio."""
    rows = [[results.row(case.name, each.name) for each in GENERATORS] for case in GENERATION]
    if not any(all(pair) for pair in rows):
        return
    yield (
        f"**Greedy generation, SmolLM2-135M-Instruct, float32: {NEW_TOKENS} new tokens after "
        f"prompts of {PROMPT}**"
    )
    yield ""
    yield "| | ours, tokens/s | torch + transformers, tokens/s | ours against torch |"
    yield "|---|--:|--:|--:|"
    for case, (ours, torch) in zip(GENERATION, rows, strict=True):
        if ours is None or torch is None:
            continue
        rates = [row.response_tokens / row.seconds for row in (ours, torch)]
        yield (f"| {case.title} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[0] / rates[1]:.2f}× |")
    yield ""
