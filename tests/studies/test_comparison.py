"""Means, standard errors and paired bootstrap intervals against direct computation."""

import dataclasses

import numpy as np
import pytest

from adakd_jax.studies.comparison import difference, seed_mean, summarise
from adakd_jax.studies.metrics import METRICS
from adakd_jax.studies.results import RunResult

NLL, ROUGE = METRICS[0], METRICS[-1]
TOKENS = [3.0, 5.0, 2.0, 8.0, 4.0, 6.0]


def result(values, seed=0, method="m", rouge=None):
    """A run with `values` nats a token in each document."""
    sums = [value * tokens for value, tokens in zip(values, TOKENS, strict=True)]
    metrics = {"nll": sum(sums) / sum(TOKENS)}
    if rouge is not None:
        metrics["rouge_l"] = float(np.mean(rouge))
    return RunResult(
        method=method,
        seed=seed,
        settings={},
        data={},
        metrics=metrics,
        documents={"tokens": TOKENS, "nll": sums},
        rouge_l=rouge or [],
        answers=[],
        training={},
        evaluation_seconds=1.0,
    )


@pytest.fixture(scope="module")
def runs():
    """Two methods of two seeds; the second is worse by about 0.3 nats on every document."""
    rng = np.random.default_rng(1)
    base = {seed: rng.normal(2.0, 0.5, 6) for seed in (0, 1)}
    noise = {seed: rng.normal(0.3, 0.05, 6) for seed in (0, 1)}
    return (
        {seed: result(values, seed) for seed, values in base.items()},
        {seed: result(base[seed] + noise[seed], seed) for seed in base},
        noise,
    )


def test_a_method_does_not_differ_from_itself(runs):
    base, _, _ = runs
    gap = difference(NLL, base, base)
    assert (gap.value, gap.low, gap.high, gap.by_seed) == (0.0, 0.0, 0.0, (0.0, 0.0))
    assert gap.verdict == "unresolved"


def test_what_is_no_mean_over_examples_is_not_compared(runs):
    calibration = next(metric for metric in METRICS if metric.name == "calibration_error")
    runs = [
        {seed: dataclasses.replace(one, metrics={"calibration_error": 0.1 + seed / 10})
         for seed, one in method.items()}
        for method in runs[:2]
    ]  # fmt: skip
    assert difference(calibration, *runs) is None
    mean = seed_mean(calibration, list(runs[0].values()))
    assert mean is not None and (round(mean.value, 6), round(mean.error, 6)) == (0.15, 0.05)


def test_a_shift_is_found_with_its_size(runs):
    base, worse, noise = runs
    gap = difference(NLL, worse, base, resamples=1000)
    weights = np.asarray(TOKENS) / sum(TOKENS)
    expected = [float(noise[seed] @ weights) for seed in (0, 1)]
    np.testing.assert_allclose(gap.by_seed, expected)
    np.testing.assert_allclose(gap.value, np.mean(expected))
    assert 0.2 < gap.low < gap.value < gap.high < 0.4
    assert gap.verdict == "worse"
    assert difference(NLL, base, worse).verdict == "better"


def test_the_interval_is_that_of_resampled_ratios(runs):
    base, worse, _ = runs
    gap = difference(NLL, worse, base, resamples=400)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(400):
        picked = rng.integers(6, size=6)
        ratios = []
        for group in (worse, base):
            sums = np.mean([np.asarray(r.documents["nll"])[picked] for r in group.values()], axis=0)
            ratios.append(sums.sum() / np.asarray(TOKENS)[picked].sum())
        drawn.append(ratios[0] - ratios[1])
    np.testing.assert_allclose([gap.low, gap.high], np.quantile(drawn, [0.025, 0.975]), rtol=1e-9)


def test_seeds_that_disagree_or_are_alone_resolve_nothing(runs):
    base, worse, _ = runs
    alone = difference(NLL, {0: worse[0]}, base)
    assert alone.low > 0 and alone.verdict == "unresolved" and len(alone.by_seed) == 1
    better = result([v / t - 0.2 for v, t in zip(base[1].documents["nll"], TOKENS, strict=True)])
    mixed = difference(NLL, {0: worse[0], 1: better}, base)
    assert mixed.by_seed[0] > 0 > mixed.by_seed[1]
    assert mixed.verdict == "unresolved"


def test_higher_is_better_for_answers():
    low, high = ([0.1, 0.2, 0.15, 0.3], [0.2, 0.3, 0.26, 0.4])
    base = {seed: result([1.0] * 6, seed, rouge=low) for seed in (0, 1)}
    other = {seed: result([1.0] * 6, seed, rouge=high) for seed in (0, 1)}
    gap = difference(ROUGE, other, base)
    assert gap.value == pytest.approx(0.1025) and gap.verdict == "better"
    assert difference(ROUGE, base, other).verdict == "worse"


def test_other_examples_are_not_compared(runs):
    base, _, _ = runs
    other = result([1.0] * 6)
    other.documents["tokens"] = [4.0, *TOKENS[1:]]
    with pytest.raises(ValueError, match="same held-out examples"):
        difference(NLL, {0: other}, base)
    assert difference(NLL, {7: base[0]}, base) is None
    assert difference(ROUGE, base, base) is None


def test_means_and_standard_errors_over_seeds(runs):
    base, _, _ = runs
    mean = seed_mean(NLL, list(base.values()))
    first, second = (run.metrics["nll"] for run in base.values())
    assert mean.value == pytest.approx((first + second) / 2)
    assert mean.error == pytest.approx(abs(first - second) / 2)
    assert seed_mean(NLL, [base[0]]).error is None
    assert seed_mean(ROUGE, [base[0]]) is None


def test_each_method_is_compared_with_its_own(study, runs):
    base, worse, _ = runs
    methods = {"a": {}, "b": {}, "c": {}, "unfinished": {}}
    config = study(methods=methods, baseline="a", against={"c": "b"})
    named = {"a": base, "b": worse, "c": base}
    results = [
        result(np.asarray(r.documents["nll"]) / TOKENS, r.seed, method)
        for method, group in named.items()
        for r in group.values()
    ]
    a, b, c = summarise(config, results)
    assert a.differences == {}
    assert (b.against, c.against) == ("a", "b")
    assert b.differences["nll"].value == pytest.approx(-c.differences["nll"].value)
