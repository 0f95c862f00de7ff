"""Real instruction rows as batches: packed by this package, and padded as its peers do."""

from pathlib import Path

import numpy as np

from adakd_jax.config import Columns, FileSource
from adakd_jax.config.data import DataConfig
from adakd_jax.config.training import TrainingConfig
from adakd_jax.data.assemble import assemble_rows
from adakd_jax.data.examples import encode_rows
from adakd_jax.data.loader import TrainingBatches
from adakd_jax.data.sources import open_rows
from adakd_jax.hf.load import load_pretrained
from benchmarks.cases import Batch

CACHE = "~/.cache/adakd_jax/data"
SEED = 0


def dolly_batches(
    rows_file: Path, model: str, rows: int, length: int, steps: int
) -> tuple[list[Batch], list[Batch], list[Batch]]:
    """`steps` batches of `rows` rows: packed, one document a row padded to `length`, and one
    document a row padded to the longest of its batch (rounded up to a multiple of 64, so that a
    contender that compiles for a shape may do so beforehand).
    """
    source = FileSource(path=str(rows_file))
    columns = Columns(input="input", output="output")
    tokenizer = load_pretrained(model).tokenizer
    assert tokenizer is not None
    examples = encode_rows(
        open_rows(source, columns=columns, cache_dir=CACHE),
        "alpaca",
        tokenizer,
        max_prompt_length=length // 2,
        max_length=length,
        cache_dir=CACHE,
    )
    data = DataConfig(
        train=source, columns=columns, max_length=length, max_prompt_length=length // 2
    )
    loader = TrainingBatches(examples, data, TrainingConfig(steps=steps, batch_rows=rows), SEED)
    packed = [Batch(*(array[0] for array in loader.batch(step)[:4])) for step in range(steps)]
    order = np.random.default_rng(SEED).permutation(len(examples))
    padded, longest = [], []
    for step in range(steps):
        chosen = order[step * rows : (step + 1) * rows]
        width = -(-int(examples.lengths[chosen].max()) // 64) * 64
        for batches, size in ((padded, length), (longest, width)):
            batches.append(Batch(*assemble_rows(examples, list(chosen[:, None]), size)[:4]))
    return packed, padded, longest
