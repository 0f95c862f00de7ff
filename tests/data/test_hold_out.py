import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adakd_jax.data.split import hold_out


@given(st.integers(2, 300), st.floats(0.0, 0.5), st.integers(0, 9))
def test_every_row_is_on_exactly_one_side(count, fraction, seed):
    train, held_out = hold_out(count, fraction, seed)
    assert sorted([*train, *held_out]) == list(range(count))
    assert len(held_out) == (max(round(fraction * count), 1) if fraction else 0)


def test_the_choice_is_random_and_the_same_for_the_same_seed():
    chosen = [hold_out(100, 0.1, seed)[1].tolist() for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[0] == sorted(chosen[0]) != list(range(10))
    counts = np.bincount(np.concatenate([hold_out(10, 0.3, seed)[1] for seed in range(300)]))
    assert counts.min() > 50  # of 90 expected


@pytest.mark.parametrize(
    ("count", "fraction", "message"),
    [(1, 0.1, "leaves none to train on"), (10, 0.99, "leaves none"), (10, 1.0, "not in")],
)
def test_a_split_that_leaves_nothing_is_refused(count, fraction, message):
    with pytest.raises(ValueError, match=message):
        hold_out(count, fraction, 0)
