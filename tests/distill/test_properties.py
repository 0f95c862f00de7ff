"""What must hold whatever the numbers: invariances, bounds, monotonicity."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adakd_jax.config import DistillConfig, Idts, TopRatio
from adakd_jax.distill import (
    DIVERGENCES,
    SCORES,
    Signals,
    distillation_loss,
    divergence,
    idts_temperature,
    token_scores,
)

EXAMPLES = settings(max_examples=15, deadline=None)
TOKENS, VOCABULARY = 6, 9
seeds, scales = st.integers(0, 10_000), st.sampled_from([1e-3, 0.3, 3.0, 30.0])
# Least upper bounds; the others have none.
BOUNDS = {
    "tvd": 1.0,
    "hellinger": 1.0,
    "gkd_jsd": np.log(2.0),
    "jsd": -0.1 * np.log(0.1) - 0.9 * np.log(0.9),
    "skew_forward_kl": np.log(10.0),
    "skew_reverse_kl": np.log(10.0),
}
score = partial(jax.jit, static_argnums=0)(
    lambda rule, *arrays: token_scores(rule, *arrays, rng=jax.random.key(0))
)
distance = partial(jax.jit, static_argnums=0)(divergence)
DRAWN = ("random",)


def draw(seed, scale):
    rng = np.random.default_rng(seed)
    student, teacher = scale * rng.normal(size=(2, TOKENS, VOCABULARY)).astype(np.float32)
    return student, teacher, rng.integers(0, VOCABULARY, TOKENS).astype(np.int32), rng


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
@EXAMPLES
@given(seed=seeds, scale=scales)
def test_divergences_are_between_0_and_their_bound(name, seed, scale):
    student, teacher, _, _ = draw(seed, scale)
    values = np.asarray(distance(name, student, teacher))
    assert (values >= -1e-7).all()
    assert (values <= BOUNDS.get(name, np.inf) + 1e-6).all()
    np.testing.assert_array_equal(distance(name, teacher, teacher), 0.0)


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
@EXAMPLES
@given(seed=seeds, scale=scales, shift=st.floats(-50, 50))
def test_divergences_see_neither_a_shift_nor_the_order_of_the_vocabulary(name, seed, scale, shift):
    student, teacher, _, rng = draw(seed, scale)
    order = rng.permutation(VOCABULARY)
    # A sum is rounded to the spacing of its size: what is left differs from it by the shift alone.
    moved = student + np.float32(shift)
    student = moved - np.float32(shift)
    values = distance(name, student, teacher)
    atol = 1e-5 * np.abs(values).max() + 1e-9 + 1e-5 * min(scale, 1) ** 2
    np.testing.assert_allclose(
        distance(name, moved, teacher), values, rtol=1e-3, atol=atol + 1e-5 * scale
    )
    np.testing.assert_allclose(
        distance(name, student[:, order], teacher[:, order]), values, rtol=1e-3, atol=atol
    )


@pytest.mark.parametrize("name", sorted(set(SCORES) - set(DRAWN)))
@EXAMPLES
@given(seed=seeds, scale=scales)
def test_scores_follow_their_tokens_and_are_not_negative(name, seed, scale):
    student, teacher, labels, rng = draw(seed, scale)
    scores, order = np.asarray(score(name, student, teacher, labels)), rng.permutation(TOKENS)
    assert np.isfinite(scores).all() and (scores >= -1e-6).all()
    if name in ("hellinger", "student_confidence"):
        assert (scores <= 1.0).all()
    moved = score(name, student[order], teacher[order], labels[order])
    np.testing.assert_allclose(moved, scores[order], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", sorted(set(SCORES) - set(DRAWN)))
@EXAMPLES
@given(seed=seeds, scale=scales)
def test_masked_tokens_change_no_score(name, seed, scale):
    student, teacher, labels, rng = draw(seed, scale)
    labels[rng.random(TOKENS) < 0.5] = -100
    masked = labels == -100
    other = [np.where(masked[:, None], rng.normal(size=z.shape), z) for z in (student, teacher)]
    scores = score(name, student, teacher, labels)
    np.testing.assert_array_equal(
        score(name, *(z.astype(np.float32) for z in other), labels), scores
    )
    np.testing.assert_array_equal(np.asarray(scores)[masked], 0.0)


@EXAMPLES
@given(seed=seeds, inverse=st.booleans(), strength=st.floats(0.1, 2.0))
def test_idts_is_monotone_in_the_score(seed, inverse, strength):
    scores = jnp.sort(jnp.asarray(np.random.default_rng(seed).random(12, np.float32)))
    tau = np.asarray(idts_temperature(scores, jnp.ones(12, bool), 1.0, strength, inverse))
    steps = np.diff(tau) * (-1 if inverse else 1)
    assert (steps >= -1e-6).all()


@EXAMPLES
@given(seed=seeds, scale=st.sampled_from([0.3, 3.0]))  # scores that saturate are ties
def test_the_loss_does_not_see_the_order_of_the_tokens(seed, scale):
    student, teacher, labels, rng = draw(seed, scale)
    labels[0] = -100
    order, arrays = rng.permutation(TOKENS), (student, teacher, labels)
    config = DistillConfig(focus=TopRatio(ratio=0.6), temperature=Idts(), ce_weight=0.5)
    signals = Signals(jnp.float32(1.0), jnp.float32(0.5))
    one, other = (
        distillation_loss(config, *(jnp.asarray(x[o]) for x in arrays), signals)[0]
        for o in (np.arange(TOKENS), order)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
