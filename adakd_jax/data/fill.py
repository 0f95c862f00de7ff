"""Bin packing of lengths into rows, fast enough for millions of examples."""

import numpy as np
from jaxtyping import Int, Int64

# Steps that are packed together: bounds the memory of the table of rows.
_STEPS_AT_ONCE = 1024


def best_fit_rows(
    lengths: Int[np.ndarray, " N"], row_length: int
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " rows"]]:
    """Packs lengths into rows, longest first, each into the fullest row that still takes it.

    Rows of equal content are made together, so the work grows with the number of different
    lengths and not with N.

    Args:
      lengths: from 1 to `row_length`.
      row_length: tokens of a row.

    Returns:
      The lengths in each row, row after row, and how many of them each row holds.

    References:
      Krell et al., "Efficient Sequence Packing without Cross-contamination", arXiv 2107.02027.
    """
    counts = np.bincount(lengths, minlength=row_length + 1)
    # By free tokens: contents of unfinished rows, each with the number of such rows.
    unfinished: list[list[tuple[tuple[int, ...], int]]] = [[] for _ in range(row_length + 1)]
    some = np.zeros(row_length + 1, bool)
    for length in range(row_length, 0, -1):
        left = int(counts[length])
        while left and some[length:].any():
            free = length + int(some[length:].argmax())
            content, rows = unfinished[free].pop()
            used = min(rows, left)
            if rows > used:
                unfinished[free].append((content, rows - used))
            some[free] = bool(unfinished[free])
            unfinished[free - length].append(((*content, length), used))
            some[free - length] = True
            left -= used
        whole, rest = divmod(left, row_length // length)
        for copies, rows in ((row_length // length, whole), (rest, 1)):
            if copies and rows:
                free = row_length - copies * length
                unfinished[free].append(((length,) * copies, rows))
                some[free] = True
    contents = [item for group in unfinished for item in group]
    slots = [np.tile(np.array(content, np.int64), rows) for content, rows in contents]
    sizes = np.repeat([len(content) for content, _ in contents], [rows for _, rows in contents])
    return np.concatenate(slots), sizes.astype(np.int64)


def packed_rows(lengths: Int[np.ndarray, " N"], row_length: int) -> list[Int64[np.ndarray, " _"]]:
    """Packs examples by `best_fit_rows`: for each row the numbers of its examples."""
    slots, sizes = best_fit_rows(lengths, row_length)
    order = np.empty(len(slots), np.int64)
    order[np.argsort(slots, kind="stable")] = np.argsort(lengths, kind="stable")
    return np.split(order, np.cumsum(sizes)[:-1])


def first_fit_rows(
    lengths: Int64[np.ndarray, "steps E"], row_length: int
) -> Int64[np.ndarray, "steps E"]:
    """Packs each step's lengths into rows of its own, in order, each into the first that takes it.

    Args:
      lengths: examples of each step, from 0 to `row_length`, best in descending order.
      row_length: tokens of a row.

    Returns:
      The row within its step of each example, from 0; -1 for a length of 0.
    """
    blocks = [
        _first_fit(lengths[start : start + _STEPS_AT_ONCE], row_length)
        for start in range(0, len(lengths), _STEPS_AT_ONCE)
    ]
    return np.concatenate(blocks)


def _first_fit(lengths: np.ndarray, row_length: int) -> np.ndarray:
    steps, examples = lengths.shape
    # At most one row of a step is at most half full, or it would have gone into another such row.
    width = int(2 * lengths.sum(axis=1).max() // row_length) + 2
    free = np.full((steps, width), row_length, np.int32)
    every = np.arange(steps)
    rows = np.empty((steps, examples), np.int64)
    opened = 0
    for place in range(examples):
        length = lengths[:, place]
        seen = free[:, : min(opened + 1, width)]
        row = (seen >= length[:, None]).argmax(axis=1)
        free[every, row] -= length
        rows[:, place] = row
        opened = max(opened, int(row.max()) + 1)
    return np.where(lengths > 0, rows, -1)
