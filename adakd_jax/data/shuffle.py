"""Random orders that are the same everywhere and in every later version of NumPy."""

import numpy as np
from jaxtyping import Int64, UInt64


def random_keys(count: int, *seed: int) -> UInt64[np.ndarray, " N"]:
    """Independent random numbers, the same for the same seed.

    NumPy promises that a bit generator's raw numbers never change; it does not promise that of its
    `permutation`, so orders are made by sorting these.

    Args:
      count: how many; N.
      *seed: non-negative numbers that name the stream, such as seed and epoch.

    Returns:
      Uniform 64-bit integers.
    """
    return np.random.Philox(np.random.SeedSequence(seed)).random_raw(count)


def permutation(count: int, *seed: int) -> Int64[np.ndarray, " N"]:
    """A random order of 0 … count - 1, the same for the same seed."""
    return np.argsort(random_keys(count, *seed), kind="stable")
