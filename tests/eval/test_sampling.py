import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.eval.sampling import kept_mass, next_tokens

DRAWS = 20_000
mass_kept = jax.jit(kept_mass, static_argnames=("top_k", "top_p"))
draw = jax.jit(next_tokens, static_argnames=("temperature", "top_k", "top_p"))


def oracle(logits, top_k, top_p):
    """Probabilities after top-k, then top-p, by sorting; float64."""
    order = np.argsort(-logits)
    kept = order if top_k == 0 else order[:top_k]
    mass = np.exp(logits[kept].astype(np.float64) - logits.max())
    needed = np.searchsorted(np.cumsum(mass), top_p * mass.sum()) + 1
    kept = kept[:needed]
    probability = np.zeros(len(logits))
    probability[kept] = np.exp(logits[kept].astype(np.float64))
    return probability / probability.sum()


@pytest.mark.parametrize(
    ("top_k", "top_p"), [(0, 1.0), (7, 1.0), (0, 0.9), (0, 0.3), (20, 0.8), (999, 0.999)]
)
def test_kept_mass_is_that_of_a_sorted_search(top_k, top_p):
    logits = np.random.default_rng(1).normal(scale=3, size=(3, 300)).astype(np.float32)
    mass = np.asarray(mass_kept(jnp.asarray(logits), top_k=top_k, top_p=top_p), np.float64)
    expected = np.stack([oracle(row, top_k, top_p) for row in logits])
    np.testing.assert_array_equal(mass > 0, expected > 0)
    np.testing.assert_allclose(mass / mass.sum(1, keepdims=True), expected, rtol=1e-5)


def test_top_p_keeps_one_dominant_token_and_ties_together():
    logits = jnp.asarray(
        [[0.0, 9.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [-jnp.inf, 2.0, 2.0, -jnp.inf]]
    )
    kept = np.asarray(mass_kept(logits, top_p=0.5)) > 0
    np.testing.assert_array_equal(kept, [[0, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]])


def test_top_k_one_and_temperature_zero_take_the_likeliest():
    logits = jax.random.normal(jax.random.key(0), (64, 40))
    keys = jax.random.split(jax.random.key(1), 64)
    likeliest = np.argmax(logits, axis=1)
    np.testing.assert_array_equal(draw(logits, keys, temperature=0.0), likeliest)
    np.testing.assert_array_equal(draw(logits, keys, temperature=2.0, top_k=1), likeliest)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.7, 0.8)])
def test_samples_follow_the_distribution(temperature, top_p):
    # Two blocks of the inverse-CDF search, the second partly filled.
    logits = np.random.default_rng(2).normal(scale=2, size=300).astype(np.float32)
    expected = DRAWS * oracle(logits / temperature, 0, top_p)
    keys = jax.random.split(jax.random.key(4), DRAWS)
    many = jnp.broadcast_to(jnp.asarray(logits), (DRAWS, 300))
    seen = np.bincount(draw(many, keys, temperature=temperature, top_p=top_p), minlength=300)
    assert seen[expected == 0].sum() == 0
    common = expected >= 5
    expected, seen = (
        np.append(counts[common], counts[~common].sum()) for counts in (expected, seen)
    )
    chi_square = np.sum((seen - expected) ** 2 / np.maximum(expected, 1e-9))
    freedom = common.sum()
    # Mean ± standard deviations of a chi-square variable: a wrong table is off by far more.
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_rows_are_independent():
    logits = jax.random.normal(jax.random.key(0), (8, 40))
    keys = jax.random.split(jax.random.key(1), 8)
    together = draw(logits, keys, temperature=1.0, top_p=0.9)
    alone = draw(logits[3:4], keys[3:4], temperature=1.0, top_p=0.9)
    assert together[3] == alone[0]
