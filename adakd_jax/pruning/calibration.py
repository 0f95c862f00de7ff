"""The rows that a model is observed on: packed as in training, from all over the training rows."""

import numpy as np

from adakd_jax.axes import TokenBatch
from adakd_jax.data.assemble import assemble_rows
from adakd_jax.data.examples import Examples
from adakd_jax.data.fill import packed_rows

# On every machine alike: a norm over the rows of a batch depends on how many there are.
BATCH_ROWS = 8


def calibration_batches(examples: Examples, row_length: int, rows: int) -> list[TokenBatch]:
    """Some packed rows of some examples, as batches of one shape.

    Args:
        examples: the tokenized training rows.
        row_length: T.
        rows: how many packed rows at most, evenly spread over all of them.

    Returns:
        NumPy arrays [8, T]; the last is filled up with empty rows.
    """
    packed = packed_rows(examples.lengths, row_length)
    spread = np.linspace(0, len(packed) - 1, min(rows, len(packed))).round().astype(int)
    chosen = [packed[number] for number in spread]
    chosen += [np.zeros(0, np.int64)] * (-len(chosen) % BATCH_ROWS)
    return [
        assemble_rows(examples, chosen[start : start + BATCH_ROWS], row_length)
        for start in range(0, len(chosen), BATCH_ROWS)
    ]
