"""Examples to token rows, with labels, positions and segments per document."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Int32

from adakd_jax.axes import IGNORE, TokenBatch
from adakd_jax.data.examples import Examples
from adakd_jax.data.tokenize import Example


def assemble_rows(
    examples: Examples | Sequence[Example], rows: Sequence[Int[np.ndarray, " _"]], row_length: int
) -> TokenBatch:
    """Puts examples one after another into rows.

    Args:
      examples: what the rows are made of.
      rows: for each row the numbers of its examples, in order; none for an empty row.
      row_length: T.

    Returns:
      int32 arrays [rows, T], NumPy. `labels[t]` is the next token where that is a target of the
      same document, else `IGNORE`: the last token of a document has none. `segments` counts
      documents from 1; behind the last one all is padding: token 0, position 0, segment 0.
    """
    shape = (len(rows), row_length)
    tokens, positions, segments = (np.zeros(shape, np.int32) for _ in range(3))
    labels = np.full(shape, IGNORE, np.int32)
    for row, documents in enumerate(rows):
        start = 0
        for number, document in enumerate(documents.tolist(), start=1):
            example = examples[document]
            end = start + len(example.tokens)
            tokens[row, start:end] = example.tokens
            labels[row, start : end - 1] = _next_targets(example.tokens, example.targets)
            positions[row, start:end] = np.arange(end - start)
            segments[row, start:end] = number
            start = end
    return TokenBatch._make((tokens, labels, positions, segments, None))


def _next_targets(
    tokens: Int32[np.ndarray, " T"], targets: Bool[np.ndarray, " T"]
) -> Int32[np.ndarray, " T-1"]:
    return np.where(targets[1:], tokens[1:], np.int32(IGNORE))
