"""Selection: the k highest, ties by position, k from a traced ratio."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adakd_jax.config import AllTokens, DistillConfig, Latf, TopRatio, UniformScore
from adakd_jax.distill import FOCI, Signals, select_top_ratio
from adakd_jax.distill.focus import kept_count, token_weights, weight_total
from tests.distill import oracle

select, keep = jax.jit(select_top_ratio), jax.jit(kept_count)
SIZE = 24


@settings(max_examples=50, deadline=None)
@given(
    scores=st.lists(st.integers(0, 5), min_size=SIZE, max_size=SIZE),
    mask=st.lists(st.booleans(), min_size=SIZE, max_size=SIZE),
    ratio=st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0]) | st.floats(0.01, 1.0),
)
def test_oracle(scores, mask, ratio):
    scores, mask = np.asarray(scores, np.float32).reshape(4, 6), np.asarray(mask).reshape(4, 6)
    selected = select(scores, mask, np.float32(ratio))
    np.testing.assert_array_equal(selected, oracle.select(scores, mask, ratio))


@pytest.mark.parametrize(
    ("tokens", "ratio", "expected"),
    [(10, 0.9, 9), (10, 0.99, 9), (10, 0.05, 1), (3, 0.5, 1), (24, 0.7, 16), (24, 1.0, 24)],
)
def test_count(tokens, ratio, expected):
    scores = np.random.default_rng(0).random((4, 6), np.float32)
    mask = np.arange(24).reshape(4, 6) < tokens
    assert int(select(scores, mask, np.float32(ratio)).sum()) == expected


@pytest.mark.parametrize(("tokens", "percent"), [(10, 90), (300, 21), (900, 13), (450, 26)])
def test_count_tolerates_the_rounding_of_the_ratio(tokens, percent):
    # In float32, .21·300 is less than 63, and .13·900 less than 117.
    assert int(keep(np.int32(tokens), np.float32(percent / 100))) == tokens * percent // 100


@pytest.mark.parametrize("tokens", [1_000, 10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("percent", [10, 35, 70, 90, 95])
def test_count_of_round_shares_is_exact(tokens, percent):
    count = keep(np.int32(tokens), np.float32(percent / 100))
    assert int(count) == tokens * percent // 100


def test_ties_go_to_the_lower_index():
    scores = np.zeros((4, 6), np.float32)
    mask = np.ones((4, 6), bool)
    mask[0, :2] = False
    selected = np.asarray(select(scores, mask, np.float32(0.25))).reshape(-1)
    np.testing.assert_array_equal(np.flatnonzero(selected), [2, 3, 4, 5, 6])


def test_empty_mask_selects_nothing_and_one_token_itself():
    scores = np.ones((4, 6), np.float32)
    one = np.zeros((4, 6), bool)
    assert not select(scores, one, np.float32(0.5)).any()
    one[2, 3] = True
    np.testing.assert_array_equal(select(scores, one, np.float32(0.01)), one)


@pytest.mark.parametrize("outlier", [np.nan, np.inf])
def test_broken_scores_come_first_but_never_from_masked_tokens(outlier):
    scores = np.random.default_rng(0).random((4, 6), np.float32)
    scores[1, 1] = scores[3, 3] = outlier
    mask = np.ones((4, 6), bool)
    mask[3, 3] = False
    selected = np.asarray(select(scores, mask, np.float32(0.01)))
    assert selected[1, 1] and selected.sum() == 1


def test_ratio_is_traced():
    traces = []

    @jax.jit
    def count(scores, mask, ratio):
        traces.append(ratio)
        return select_top_ratio(scores, mask, ratio).sum()

    scores, mask = np.arange(24, dtype=np.float32), np.ones(24, bool)
    counts = [int(count(scores, mask, jnp.float32(r))) for r in (1.0, 0.75, 0.5, 0.1)]
    assert counts == [24, 18, 12, 2]
    assert len(traces) == 1


CONFIGS = {
    "all": (AllTokens(), 1.0),
    "top_ratio": (TopRatio(ratio=0.3), 0.3),
    "latf": (Latf(), 0.6),
}


@partial(jax.jit, static_argnums=0)
def _weights(config, scores, mask, signals):
    return token_weights(config, scores, mask, signals), weight_total(config, mask, signals)


@pytest.mark.parametrize("kind", sorted(FOCI))
def test_total_of_weights_is_known_without_scores(kind):
    focus, ratio = CONFIGS[kind]
    config, signals = DistillConfig(focus=focus), Signals(jnp.float32(0.6), jnp.float32(0))
    rng = np.random.default_rng(0)
    scores, mask = rng.random((4, 6), np.float32), rng.random((4, 6)) < 0.8
    weights, total = _weights(config, scores, mask, signals)
    np.testing.assert_array_equal(weights > 0, oracle.select(scores, mask, ratio))
    assert float(total) == float(weights.sum())


def test_uniform_scores_keep_every_token():
    config = DistillConfig(score=UniformScore(), focus=TopRatio(ratio=0.5))
    signals, mask = Signals(jnp.float32(0.5), jnp.float32(0)), np.arange(24) < 20
    weights, total = _weights(config, np.ones(24, np.float32), mask, signals)
    np.testing.assert_array_equal(weights > 0, mask)
    assert float(total) == 20
