"""Selection: the k highest, ties by position, k from a traced ratio."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adakd_jax.config import (
    AllTokens,
    CosineRatio,
    Curriculum,
    DistillConfig,
    Latf,
    LinearRatio,
    RandomTokens,
    TopRatio,
    UniformScore,
)
from adakd_jax.distill import FOCI, Signals, select_top_ratio
from adakd_jax.distill.focus import (
    entropy_ranks,
    is_review,
    kept_count,
    token_weights,
    weight_total,
)
from adakd_jax.distill.signals import Difficulty
from tests.distill import oracle, oracle_rules

select, keep = jax.jit(select_top_ratio), jax.jit(kept_count)
SIZE = 24


@settings(max_examples=50, deadline=None)
@given(
    scores=st.lists(st.integers(0, 5), min_size=SIZE, max_size=SIZE),
    mask=st.lists(st.booleans(), min_size=SIZE, max_size=SIZE),
    ratio=st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0])
    | st.floats(0.01, 1.0).map(lambda r: round(r, 3)),
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


KEY = jax.random.key(0)
# Kind → settings, and the share they keep at progress ¼ with LATF's ratio at .6.
CONFIGS = {
    "all": (AllTokens(), 1.0),
    "top_ratio": (TopRatio(ratio=0.3), 0.3),
    "latf": (Latf(), 0.6),
    "linear": (LinearRatio(start=0.9, end=0.5), 0.8),
    "cosine": (CosineRatio(start=0.9, end=0.5), 0.7 + 0.2 * np.sqrt(0.5)),
    "random": (RandomTokens(ratio=0.3), 0.3),
}


def _signals(ratio=0.6, progress=0.25, **more):
    return Signals(jnp.float32(ratio), jnp.float32(progress), **{"rng": KEY, **more})


@partial(jax.jit, static_argnums=0)
def _weights(config, scores, mask, signals):
    difficulty = Difficulty(scores, entropy_ranks(scores, mask))
    return token_weights(config, difficulty, mask, signals), weight_total(config, mask, signals)


def _tokens(seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((4, 6), np.float32), rng.random((4, 6)) < 0.8


@pytest.mark.parametrize("kind", sorted(FOCI))
def test_total_of_weights_is_known_without_scores(kind):
    focus = Curriculum() if kind == "curriculum" else CONFIGS[kind][0]
    scores, mask = _tokens()
    weights, total = _weights(DistillConfig(focus=focus), scores, mask, _signals())
    np.testing.assert_allclose(total, weights.sum(), rtol=1e-6)
    assert (np.asarray(weights)[~mask] == 0).all()


@pytest.mark.parametrize("kind", sorted(set(CONFIGS) - {"random"}))
def test_share_that_is_kept(kind):
    focus, ratio = CONFIGS[kind]
    scores, mask = _tokens()
    weights, _ = _weights(DistillConfig(focus=focus), scores, mask, _signals())
    np.testing.assert_array_equal(weights > 0, oracle.select(scores, mask, ratio))


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_curriculum_goes_from_sure_to_unsure(progress):
    scores, mask = _tokens()
    weights, total = _weights(
        DistillConfig(focus=Curriculum()), scores, mask, _signals(progress=progress)
    )
    u = oracle_rules.ranks(scores, mask)
    raw = np.where(mask, (1 - progress) * (1 - u) + progress * u, 0.0)
    np.testing.assert_allclose(weights, raw * mask.sum() / raw.sum(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(weights.sum(), mask.sum(), rtol=1e-6)
    assert float(total) == mask.sum()


def test_curriculum_of_one_token_and_of_none():
    config = DistillConfig(focus=Curriculum())
    scores, none = _tokens()[0], np.zeros((4, 6), bool)
    assert not _weights(config, scores, none, _signals(progress=1.0))[0].any()
    one = none.copy()
    one[2, 3] = True
    for progress in (0.0, 1.0):
        weights, _ = _weights(config, scores, one, _signals(progress=progress))
        np.testing.assert_array_equal(weights, one)


def test_ranks_go_from_0_to_1_with_ties_by_position():
    values = np.float32([[3, 1, 9], [1, 0, 2]])
    mask = np.array([[True, True, False], [True, True, True]])
    u = jax.jit(entropy_ranks)(values, mask)
    np.testing.assert_allclose(u, [[1, 0.25, 0], [0.5, 0, 0.75]])
    np.testing.assert_array_equal(jax.jit(entropy_ranks)(values, mask & (values > 2)), 0.0)


def test_random_tokens_do_not_follow_the_scores():
    scores, mask = _tokens()
    config = DistillConfig(focus=RandomTokens(ratio=0.5))
    drawn = [
        np.asarray(_weights(config, scores, mask, _signals(rng=jax.random.key(seed)))[0])
        for seed in range(40)
    ]
    assert {int(w.sum()) for w in drawn} == {int(mask.sum() // 2)}
    share = np.mean(drawn, axis=0)[mask]
    assert share.min() > 0.2 and share.max() < 0.8


def test_rules_that_draw_need_a_key():
    scores, mask = _tokens()
    for focus in (RandomTokens(), TopRatio(review_ratio=0.5)):
        with pytest.raises(ValueError, match=r"needs a random key in Signals\.rng"):
            _weights(DistillConfig(focus=focus), scores, mask, _signals(rng=None))


@pytest.mark.parametrize("focus", [TopRatio, LinearRatio, CosineRatio, Latf, RandomTokens])
def test_a_review_uses_all_tokens(focus):
    scores, mask = _tokens()
    config = DistillConfig(focus=focus(review_ratio=0.5))
    for review in (True, False):
        signals = _signals(review=jnp.asarray(review))
        weights, total = _weights(config, scores, mask, signals)
        assert float(total) == weights.sum()
        assert (float(total) == mask.sum()) == review
        assert bool(is_review(config, signals)) == review


def test_reviews_come_with_their_probability():
    config = DistillConfig(focus=Latf(review_ratio=0.3))
    drawn = jax.vmap(lambda key: is_review(config, _signals(rng=key)))(jax.random.split(KEY, 2000))
    assert 0.27 < np.mean(drawn) < 0.33
    never = DistillConfig(focus=Latf())
    assert is_review(never, _signals(rng=None)) is False


def test_uniform_scores_keep_every_token():
    config = DistillConfig(score=UniformScore(), focus=TopRatio(ratio=0.5))
    mask = np.arange(24) < 20
    weights, total = _weights(config, np.ones(24, np.float32), mask, _signals())
    np.testing.assert_array_equal(weights > 0, mask)
    assert float(total) == 20
