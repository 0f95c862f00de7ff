"""Paired differences against direct computation."""

import numpy as np
import pytest

from adakd_jax.eval.bootstrap import bootstrap_interval, paired_gap

RNG = np.random.default_rng(5)
BASE = RNG.normal(2.0, 1.0, 60)
WEIGHTS = RNG.integers(1, 9, 60).astype(float)


def test_a_shift_on_every_example_is_found_through_their_scatter():
    gap = paired_gap(BASE + RNG.normal(0.3, 0.1, 60), BASE)
    assert 0.25 < gap.low < gap.value < gap.high < 0.35
    assert gap.p == pytest.approx(2 / 1001)  # no resample on the other side
    low, high = bootstrap_interval(BASE)
    assert high - low > 5 * (gap.high - gap.low)


def test_weighted_values_are_ratios_of_sums():
    gap = paired_gap(BASE * WEIGHTS, BASE, WEIGHTS, resamples=300, seed=2)
    rng, drawn = np.random.default_rng(2), []
    picks = rng.integers(60, size=(300, 60))
    for picked in picks:
        gaps = BASE[picked] * WEIGHTS[picked] - BASE[picked]
        drawn.append(gaps.sum() / WEIGHTS[picked].sum())
    np.testing.assert_allclose([gap.low, gap.high], np.quantile(drawn, [0.025, 0.975]))
    assert gap.value == pytest.approx((BASE * WEIGHTS - BASE).sum() / WEIGHTS.sum())


def test_many_examples_are_resampled_in_blocks_and_come_out_alike(monkeypatch):
    whole = paired_gap(BASE * WEIGHTS, BASE, WEIGHTS, resamples=50)
    monkeypatch.setattr("adakd_jax.eval.bootstrap._PICKS_AT_A_TIME", 420)  # 7 resamples
    assert paired_gap(BASE * WEIGHTS, BASE, WEIGHTS, resamples=50) == whole


def test_the_p_of_no_difference_is_not_small_and_that_of_none_at_all_is_one():
    p = [paired_gap(RNG.normal(size=40), RNG.normal(size=40), resamples=400).p for _ in range(60)]
    # p is about uniform: of 60 values, 3 are expected below .05.
    assert sum(value < 0.05 for value in p) < 12 and sum(value > 0.5 for value in p) > 15
    assert paired_gap(BASE, BASE).p == 1.0


def test_the_order_of_the_models_turns_the_sign_alone():
    one, other = paired_gap(BASE, BASE**2), paired_gap(BASE**2, BASE)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p == other.p


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 2.0])])
def test_other_examples_are_refused(first, second):
    with pytest.raises(ValueError, match="same examples"):
        paired_gap(first, second)
