"""Difficulty scores against the float64 oracle, at equality, under masks, and cut in slices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.distill import SCORES, token_scores
from adakd_jax.distill.log_probability import log_probabilities
from tests.distill import oracle_rules as oracle

NAMES = sorted(SCORES)
KEY = jax.random.key(0)


@partial(jax.jit, static_argnums=0, static_argnames="k")
def score(name, *arguments, mask=None, **options):
    return token_scores(name, *arguments, mask=mask, rng=KEY, **options)


def test_every_score_has_an_oracle():
    assert len(SCORES) == 16
    assert set(SCORES) == set(oracle.SCORES) | {"logtoku", "nmtkd", "random"}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_oracle(name, scale, batch):
    student, teacher, labels = batch[0] * np.float32(scale), batch[1] * np.float32(scale), batch[2]
    expected = oracle.scores(name, student, teacher, labels)
    actual = score(name, student, teacher, labels)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, rtol=5e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["logtoku", "nmtkd"])
@pytest.mark.parametrize("k", [1, 5, 13, 100])
def test_number_of_largest_logits(name, k, batch):
    actual = score(name, *batch, k=k)
    expected = oracle.scores(name, *batch, k=min(k, 13))
    np.testing.assert_allclose(actual, expected, rtol=5e-5, atol=1e-6)


def test_constant_statistics_are_no_reason_to_prefer_a_token():
    logits = np.zeros((2, 8, 13), np.float32)
    np.testing.assert_array_equal(score("logtoku", logits, logits), 0.0)


def test_random_scores_need_a_key_and_differ_by_it(batch):
    with pytest.raises(ValueError, match="score random: needs a random key"):
        token_scores("random", *map(jnp.asarray, batch))
    arrays = tuple(map(jnp.asarray, batch))
    drawn = [token_scores("random", *arrays, rng=jax.random.key(i)) for i in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    kept = np.asarray(drawn[0])[batch[2] != -100]
    assert 0 <= kept.min() < 0.4 and 0.6 < kept.max() < 1


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"random"}))
def test_equal_models_have_finite_scores(name):
    logits = np.float32([[0.3, -2.0, 1.0, -np.inf], [0.0, 0.0, 0.0, 0.0], [99.0, -99.0, 0.0, 1.0]])
    scores = np.asarray(score(name, logits, logits, np.int32([0, 1, 2])))
    assert np.isfinite(scores).all() and (scores >= 0).all()
    if name in ("hellinger", "forward_kl", "reverse_kl", "jsd", "bhattacharyya"):
        np.testing.assert_array_equal(scores, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_masked_rows_may_hold_anything(name, batch):
    student, teacher, labels = batch
    expected = score(name, student, teacher, labels)
    masked = labels == -100
    spoiled = [np.where(masked[..., None], np.float32(np.nan), z) for z in (student, teacher)]
    actual = score(name, *spoiled, labels)
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(np.asarray(actual)[masked], 0.0)


def test_hellinger_is_0_at_equality_and_1_on_disjoint_support():
    inf = np.inf
    student = np.float32([[0.3, -2.0, 1.0, 0.1], [0.0, 1.0, -inf, -inf]])
    teacher = np.float32([[0.3, -2.0, 1.0, 0.1], [-inf, -inf, 2.0, 0.0]])
    scores = np.asarray(score("hellinger", student, teacher))
    assert scores[0] == 0.0
    np.testing.assert_allclose(scores[1], 1.0, rtol=1e-6)


def test_hellinger_does_not_cancel_for_easy_tokens():
    rng = np.random.default_rng(1)
    teacher = rng.normal(size=(2, 8, 13)).astype(np.float32)
    student = (teacher + 1e-3 * rng.normal(size=teacher.shape)).astype(np.float32)
    labels = np.zeros((2, 8), np.int32)
    expected = oracle.scores("hellinger", student, teacher, labels)
    assert expected.max() < 1e-3
    np.testing.assert_allclose(score("hellinger", student, teacher, labels), expected, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient(name, batch):
    total = jax.jit(jax.grad(lambda s, t: token_scores(name, s, t, rng=KEY).sum(), (0, 1)))
    for gradient in total(*batch[:2]):
        np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_slices_of_tokens_give_the_same_scores(name, batch):
    rule = SCORES[name]

    @jax.jit
    def sliced(student, teacher, labels):
        chunks = [z.reshape(4, 4, -1) for z in (student, teacher)]
        mask = labels.reshape(-1) != -100
        ids = jnp.where(mask, labels.reshape(-1), 0).reshape(4, 4)

        def statistics(slices):
            student, teacher, ids = slices
            return rule.statistics(log_probabilities(student), log_probabilities(teacher), ids)

        numbers = jax.lax.map(statistics, (*chunks, ids))
        return rule.finish(numbers.reshape(16, numbers.shape[-1]), mask, KEY)

    expected, mask = score(name, *batch).reshape(-1), batch[2].reshape(-1) != -100
    np.testing.assert_allclose(sliced(*batch)[mask], expected[mask], rtol=1e-5)


def test_bfloat16_logits_are_computed_in_float32(batch):
    student, teacher = (jnp.asarray(z, jnp.bfloat16) for z in batch[:2])
    scores = score("hellinger", student, teacher)
    wide = score("hellinger", *(np.asarray(z, np.float32) for z in (student, teacher)))
    assert scores.dtype == jnp.float32
    np.testing.assert_array_equal(scores, wide)


def test_mask_overrides_labels(batch):
    mask = np.zeros(batch[2].shape, bool)
    mask[0, 0] = True
    scores = np.asarray(score("hellinger", *batch, mask=mask))
    assert scores[0, 0] > 0 and (scores != 0).sum() == 1


def test_unknown_rule_lists_the_valid_ones():
    zeros = jnp.zeros((1, 3))
    with pytest.raises(ValueError, match=r"unknown score 'helinger'.*hellinger, jsd"):
        token_scores("helinger", zeros, zeros)
