"""Means over seeds, and differences between two methods that are measured on the same examples."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from adakd_jax.config.study import StudyConfig
from adakd_jax.eval.bootstrap import bootstrap_interval
from adakd_jax.studies.metrics import METRICS, Metric
from adakd_jax.studies.results import RunResult


class Mean(NamedTuple):
    """A metric over the seeds of a method; `error` is the standard error, None of one seed."""

    value: float
    error: float | None
    seeds: int


class Difference(NamedTuple):
    """A method minus the one it is compared with, over the seeds that both have.

    Attributes:
        value: mean over seeds of the difference of the metric.
        low, high: 95% bootstrap interval over held-out examples.
        by_seed: the difference of each seed.
        verdict: "better" or "worse" where the interval excludes 0 and at least two seeds agree in
            sign, all of them; else "unresolved".
    """

    value: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    verdict: Literal["better", "worse", "unresolved"]


class MethodSummary(NamedTuple):
    """A method's runs, its means by metric name, and how it differs from `against`, if finished."""

    method: str
    against: str
    results: dict[int, RunResult]
    means: dict[str, Mean]
    differences: dict[str, Difference]


def summarise(study: StudyConfig, results: Sequence[RunResult]) -> list[MethodSummary]:
    """Every method that has a finished run, in the order of the study."""
    found = {name: {r.seed: r for r in results if r.method == name} for name in study.methods}
    summaries = []
    for name, own in found.items():
        if not own:
            continue
        against = study.against.get(name, study.baseline)
        means, differences = {}, {}
        for metric in METRICS:
            if (mean := seed_mean(metric, list(own.values()))) is not None:
                means[metric.name] = mean
            gap = difference(metric, own, found[against], resamples=study.resamples)
            if gap is not None and name != against:
                differences[metric.name] = gap
        summaries.append(MethodSummary(name, against, own, means, differences))
    return summaries


def seed_mean(metric: Metric, results: Sequence[RunResult]) -> Mean | None:
    """The mean of a metric over runs of one method; None if none of them has it."""
    values = [result.metrics[metric.name] for result in results if metric.name in result.metrics]
    if not values:
        return None
    error = None
    if len(values) > 1:
        error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return Mean(float(np.mean(values)), error, len(values))


def difference(
    metric: Metric,
    method: Mapping[int, RunResult],
    baseline: Mapping[int, RunResult],
    *,
    resamples: int = 2000,
) -> Difference | None:
    """Compare two methods by a metric.

    Examples are resampled as pairs: a resample draws the same examples for both methods and all
    seeds, and the metric's Σ value / Σ weight is taken anew.

    Args:
        metric: what to compare.
        method: its results by seed.
        baseline: those of what it is compared with.
        resamples: bootstrap resamples.

    Returns:
        the difference; None where no seed has both, the metric was not measured, or is no mean
        over examples.

    Raises:
        ValueError: two results are of different examples.
    """
    seeds = sorted(method.keys() & baseline.keys())
    if not seeds or not metric.by_example or metric.name not in method[seeds[0]].metrics:
        return None
    pairs = [(metric.examples(method[seed]), metric.examples(baseline[seed])) for seed in seeds]
    weights = pairs[0][0][1]
    for seed, (one, other) in zip(seeds, pairs, strict=True):
        if not (np.array_equal(one[1], weights) and np.array_equal(other[1], weights)):
            raise ValueError(
                f"seed {seed}: {method[seed].method} and {baseline[seed].method} were not measured "
                "on the same held-out examples"
            )
    gaps = np.stack([one[0] - other[0] for one, other in pairs])
    by_seed = gaps.sum(axis=1) / weights.sum()
    low, high = bootstrap_interval(gaps.mean(axis=0), weights, resamples=resamples)
    verdict = _verdict(metric, low, high, by_seed)
    return Difference(float(by_seed.mean()), low, high, tuple(by_seed.tolist()), verdict)


def _verdict(
    metric: Metric, low: float, high: float, by_seed: np.ndarray
) -> Literal["better", "worse", "unresolved"]:
    agree = len(by_seed) > 1 and (np.all(by_seed < 0) or np.all(by_seed > 0))
    if not agree or low <= 0.0 <= high:
        return "unresolved"
    return "better" if (high < 0.0) == metric.lower_is_better else "worse"
