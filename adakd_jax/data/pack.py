"""Which examples share a row, and which rows a step: a pure function of lengths, seed and epoch."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int64

from adakd_jax.data.fill import best_fit_rows, first_fit_rows
from adakd_jax.data.shuffle import permutation, random_keys

# Keep apart the random numbers of one seed and epoch that serve different ends.
_EXAMPLES, _ROWS = 0, 1
# Tokens to round lengths up to, coarsest first, and the share of rows that may cost.
_ROUNDING = (16, 8, 4, 2)
_ROUNDING_COST = 0.02


class Plan(NamedTuple):
    """One epoch: steps of rows of examples, every example once.

    Step s holds rows `step_starts[s] … step_starts[s + 1] - 1`; row r holds the examples
    `order[row_starts[r] : row_starts[r + 1]]`.
    """

    order: Int64[np.ndarray, " N"]
    row_starts: Int64[np.ndarray, " rows+1"]
    step_starts: Int64[np.ndarray, " steps+1"]

    @property
    def steps(self) -> int:
        """Optimizer steps of the epoch."""
        return len(self.step_starts) - 1

    @property
    def rows(self) -> int:
        """Packed rows of the epoch."""
        return len(self.row_starts) - 1

    def step(self, index: int) -> list[Int64[np.ndarray, " row"]]:
        """The rows of a step, each as the numbers of its examples."""
        first, last = self.step_starts[index], self.step_starts[index + 1]
        starts = self.row_starts[first : last + 1]
        return np.split(self.order[starts[0] : starts[-1]], starts[1:-1] - starts[0])


def packing_plan(
    lengths: Int[np.ndarray, " N"],
    *,
    row_length: int,
    seed: int,
    epoch: int,
    batch_rows: int | None = None,
    batch_examples: int | None = None,
) -> Plan:
    """Packs one epoch.

    With `batch_rows`, which lengths share a row follows from the lengths alone (best fit, longest
    first); which examples of about these lengths do is random, and so is the order of the rows.
    Every epoch has as many rows, and as many steps. With `batch_examples`, the epoch is a random
    order of the examples, cut into steps of that many and each packed by itself (first fit, longest
    first). The last step of an epoch may hold less.

    Args:
      lengths: tokens of each example, from 1 to `row_length`.
      row_length: tokens of a row.
      seed: of the run; non-negative.
      epoch: from 0.
      batch_rows: rows of a step; or
      batch_examples: examples of a step.

    Returns:
      The plan: each of the N examples once.

    Raises:
      ValueError: an example that does not fit, no example, or not exactly one of the two sizes.
    """
    check_lengths(lengths, row_length)
    if (batch_rows is None) == (batch_examples is None):
        raise ValueError("packing_plan: give exactly one of batch_rows and batch_examples")
    if batch_examples is not None:
        return _plan_of_examples(lengths, row_length, seed, epoch, batch_examples)
    assert batch_rows is not None
    return _plan_of_rows(lengths, row_length, seed, epoch, batch_rows)


def check_lengths(lengths: Int[np.ndarray, " N"], row_length: int) -> None:
    """Raises ValueError unless there are examples and each of them fits a row."""
    if not len(lengths):
        raise ValueError("no example to pack")
    wrong = np.flatnonzero((lengths < 1) | (lengths > row_length))
    if len(wrong):
        raise ValueError(
            f"{len(wrong)} examples do not fit a row of {row_length} tokens: "
            f"example {wrong[0]} has {lengths[wrong[0]]}; valid: 1 to {row_length}"
        )


def rows_of_steps(
    lengths: Int[np.ndarray, " N"],
    *,
    row_length: int,
    seed: int,
    epochs: int,
    batch_examples: int,
) -> Int64[np.ndarray, " steps"]:
    """Rows of each step of all epochs: by them it is decided what batches hold.

    Args:
      lengths: tokens of each example.
      row_length: tokens of a row.
      seed: of the run.
      epochs: epochs that are begun; at least 1.
      batch_examples: examples of a step.

    Returns:
      The numbers of rows, epoch after epoch.
    """
    check_lengths(lengths, row_length)
    found = []
    for epoch in range(epochs):
        steps = _steps_of_examples(lengths, seed, epoch, batch_examples)[1]
        found.append(first_fit_rows(steps, row_length).max(axis=1) + 1)
    return np.concatenate(found)


def _plan_of_rows(
    lengths: np.ndarray, row_length: int, seed: int, epoch: int, batch_rows: int
) -> Plan:
    rounded = _round_lengths(lengths, row_length)
    slots, sizes = best_fit_rows(rounded, row_length)
    keys = random_keys(len(lengths), seed, epoch, _EXAMPLES)
    # The slots of a length, in order, get the examples of that length, at random.
    order = np.empty(len(lengths), np.int64)
    order[np.argsort(slots, kind="stable")] = np.lexsort((keys, rounded))
    order, sizes = _shuffle_rows(order, sizes, permutation(len(sizes), seed, epoch, _ROWS))
    step_starts = np.append(np.arange(0, len(sizes), batch_rows), len(sizes))
    return Plan(order, _starts(sizes), step_starts)


def _round_lengths(lengths: np.ndarray, row_length: int) -> np.ndarray:
    """Rounds lengths up as far as that costs next to no rows.

    Examples of one rounded length may take each other's places, so that fewer of them share a row
    in every epoch.
    """
    exact = len(best_fit_rows(lengths, row_length)[1])
    for unit in _ROUNDING:
        rounded = np.minimum(-(-lengths // unit) * unit, row_length)
        if len(best_fit_rows(rounded, row_length)[1]) <= (1 + _ROUNDING_COST) * exact + 1:
            return rounded
    return lengths


def _shuffle_rows(
    order: np.ndarray, sizes: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    starts = _starts(sizes)[:-1]
    shuffled = sizes[rows]
    within = np.arange(len(order)) - np.repeat(_starts(shuffled)[:-1], shuffled)
    return order[np.repeat(starts[rows], shuffled) + within], shuffled


def _plan_of_examples(
    lengths: np.ndarray, row_length: int, seed: int, epoch: int, batch_examples: int
) -> Plan:
    examples, steps = _steps_of_examples(lengths, seed, epoch, batch_examples)
    rows = first_fit_rows(steps, row_length)
    step_starts = _starts(rows.max(axis=1) + 1)
    # Rows get numbers across steps; a stable sort keeps each row's examples in order.
    numbers = (rows + step_starts[:-1, None])[rows >= 0]
    order = examples[rows >= 0][np.argsort(numbers, kind="stable")]
    return Plan(order, _starts(np.bincount(numbers)), step_starts)


def _steps_of_examples(
    lengths: np.ndarray, seed: int, epoch: int, batch_examples: int
) -> tuple[np.ndarray, np.ndarray]:
    """The examples of each step, longest first, and their lengths: [steps, batch_examples].

    The last step of the epoch is filled up with examples of length 0.
    """
    steps = -(-len(lengths) // batch_examples)
    examples = np.zeros(steps * batch_examples, np.int64)
    sizes = np.zeros(steps * batch_examples, np.int64)
    examples[: len(lengths)] = permutation(len(lengths), seed, epoch, _EXAMPLES)
    sizes[: len(lengths)] = lengths[examples[: len(lengths)]]
    shape = (steps, batch_examples)
    longest_first = np.argsort(-sizes.reshape(shape), axis=1, kind="stable")
    return (
        np.take_along_axis(examples.reshape(shape), longest_first, axis=1),
        np.take_along_axis(sizes.reshape(shape), longest_first, axis=1),
    )


def _starts(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)])
