"""Bootstrap intervals over held-out examples, of one model and of the gap between two."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_COVERAGE = 0.95
_PICKS_AT_A_TIME = 1 << 22  # 32 MiB of indices, however many examples there are


class Gap(NamedTuple):
    """The first of two models minus the second, on the same examples.

    Attributes:
      value: the difference of Σ value / Σ weight.
      low, high: its 95% percentile interval over resampled examples.
      p: two-sided, in (0, 1]: twice the smaller share of resamples on either side of 0, each
        counted with one resample more, so that it is never 0; below 0.05 about where the interval
        leaves 0 out.
    """

    value: float
    low: float
    high: float
    p: float


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    coverage: float = _COVERAGE,
) -> tuple[float, float]:
    """Percentile bootstrap interval of Σ values / Σ weights over examples.

    Args:
      values: [N], one number an example, N ≥ 1; with weights of tokens, its sum over them.
      weights: [N], positive; None: 1 each, which makes it the interval of the mean.
      resamples: how often N examples are drawn with replacement.
      seed: of the drawing.
      coverage: of the interval, in (0, 1).
    """
    drawn = _resampled(np.asarray(values, np.float64), weights, resamples, seed)
    return _percentiles(drawn, coverage)


def paired_gap(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Gap:
    """Compares two models on the same examples; a resample draws the same ones for both.

    Args:
      first: [N], as `bootstrap_interval` takes them.
      second: [N], of the other model.
      weights: [N], those of both; None: 1 each.
      resamples: see `bootstrap_interval`.
      seed: of the drawing.

    Raises:
      ValueError: there are no examples, or not as many of one as of the other.

    References: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 and 16.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != other.shape or not one.size:
        raise ValueError(
            f"two models are compared on the same examples, at least one; got {one.size} and "
            f"{other.size}"
        )
    gaps = one - other
    total = len(gaps) if weights is None else np.sum(weights)
    drawn = _resampled(gaps, weights, resamples, seed)
    low, high = _percentiles(drawn, _COVERAGE)
    side = min(int(np.sum(drawn <= 0)), int(np.sum(drawn >= 0)))
    p = min(1.0, 2 * (side + 1) / (resamples + 1))
    return Gap(float(gaps.sum() / total), low, high, p)


def _resampled(
    values: np.ndarray,
    weights: Sequence[float] | np.ndarray | None,
    resamples: int,
    seed: int,
) -> np.ndarray:
    """Σ value / Σ weight of every resample: [resamples]."""
    each = np.ones_like(values) if weights is None else np.asarray(weights, np.float64)
    rng, drawn = np.random.default_rng(seed), np.empty(resamples)
    block = max(1, _PICKS_AT_A_TIME // len(values))
    for start in range(0, resamples, block):
        size = min(block, resamples - start), len(values)
        picks = rng.integers(len(values), size=size)
        drawn[start : start + block] = values[picks].sum(axis=1) / each[picks].sum(axis=1)
    return drawn


def _percentiles(drawn: np.ndarray, coverage: float) -> tuple[float, float]:
    tail = (1.0 - coverage) / 2
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return float(low), float(high)
