"""Rows held out of training for evaluation."""

import numpy as np
from jaxtyping import Int64

from adakd_jax.data.shuffle import permutation

# Keeps the choice apart from the orders of the epochs, which use the same seed.
_STREAM = 0x5B117


def hold_out(
    count: int, fraction: float, seed: int
) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " validation"]]:
    """Splits rows at random into those to train on and those to hold out.

    A pure function of its arguments, so that a restarted run holds out the same rows.

    Args:
      count: number of rows.
      fraction: share to hold out, in [0, 1); if more than 0, at least one row is.
      seed: non-negative.

    Returns:
      The two sets of row numbers, each ascending; together every row once.

    Raises:
      ValueError: nothing would be left to train on.
    """
    if not 0.0 <= fraction < 1.0:
        raise ValueError(f"validation_fraction: {fraction} is not in [0, 1)")
    held_out = max(round(fraction * count), 1) if fraction else 0
    if held_out >= count:
        raise ValueError(
            f"validation_fraction: {fraction} of {count} rows leaves none to train on; "
            "give more rows or a `validation` source"
        )
    order = permutation(count, seed, _STREAM)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
