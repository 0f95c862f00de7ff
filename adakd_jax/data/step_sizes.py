"""How large the steps of a run are made: few sizes, as each is compiled, and little padding."""

import itertools

import numpy as np
from jaxtyping import Int64

_MOST = 3
# What a size must save to be worth its compilation: as much as so many of the largest steps.
_WORTH = 50


def step_sizes(needed: Int64[np.ndarray, " steps"]) -> tuple[int, ...]:
    """Sizes that steps are filled up to, each to the next one that holds it.

    Of each number of sizes, up to three, those with the least padding are looked at; one more is
    taken where it saves the run as much as 50 of its largest steps hold.

    Args:
        needed: what each step of the run needs, at least 1: rows, or groups of them.

    Returns:
        The sizes, increasing; the last is the largest need.
    """
    values, counts = np.unique(needed, return_counts=True)
    largest = int(values[-1])
    chosen, total = (largest,), largest * len(needed)
    for more in range(1, min(_MOST, len(values))):
        choices = itertools.combinations(values[:-1].tolist(), more)
        best = min(((*sizes, largest) for sizes in choices), key=lambda s: _held(s, values, counts))
        if total - _held(best, values, counts) < _WORTH * largest:
            break
        chosen, total = best, _held(best, values, counts)
    return chosen


def size_for(sizes: tuple[int, ...], need: int) -> int | None:
    """The smallest size that holds a need; None if none does."""
    return next((size for size in sizes if size >= need), None)


def _held(sizes: tuple[int, ...], values: np.ndarray, counts: np.ndarray) -> int:
    """What all steps hold together, padding included."""
    filled = np.asarray(sizes)[np.searchsorted(sizes, values)]
    return int((filled * counts).sum())
