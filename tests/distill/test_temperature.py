"""Per-token temperatures against the formula with tanh and log, and where that formula breaks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adakd_jax.config import DistillConfig, FixedTemperature, Idts
from adakd_jax.distill import TEMPERATURES, idts_temperature, token_temperature
from tests.distill import oracle

temperature = jax.jit(idts_temperature, static_argnames="inverse")
SHAPE = (3, 8)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), base=st.floats(0.5, 4.0), strength=st.floats(0.0, 2.0))
@pytest.mark.parametrize("inverse", [True, False])
def test_oracle(inverse, seed, base, strength):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(SHAPE), 1).astype(np.float32)  # rounded: zeros and ties happen
    selected = rng.random(SHAPE) < rng.random()
    base, strength = np.float32(base), np.float32(strength)
    tau = temperature(scores, selected, base, strength, inverse=inverse)
    expected = oracle.idts(scores, selected, base, strength, inverse)
    np.testing.assert_allclose(tau, expected, rtol=1e-5)
    low, high = base * np.exp(-strength), base * np.exp(strength)
    assert low * (1 - 1e-6) <= np.min(tau) and np.max(tau) <= high * (1 + 1e-6)


def test_median_is_the_lower_one_of_the_selected():
    scores = np.asarray([0.9, 0.2, 0.4, 0.8, 0.6], np.float32)
    tau = np.asarray(temperature(scores, scores < 0.9))
    assert tau[2] == 1.0
    assert tau[1] > 1.0 > tau[4] > tau[3]
    assert tau[0] == 1.0


def test_direction():
    scores, selected = np.float32([0.1, 0.5, 0.9, 0.3, 0.7]), np.ones(5, bool)
    inverse = np.asarray(temperature(scores, selected, 2.0, 0.3))
    forward = np.asarray(temperature(scores, selected, 2.0, 0.3, inverse=False))
    assert inverse[2] < 2.0 < inverse[0]
    np.testing.assert_allclose(inverse * forward, 4.0, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.3, 1e-30, 1e30, float("inf")])
def test_equal_scores_give_the_base(value):
    scores, base, strength = np.full(SHAPE, value, np.float32), np.float32(1.5), np.float32(0.5)
    for selected in (np.ones(SHAPE, bool), np.zeros(SHAPE, bool)):
        np.testing.assert_array_equal(temperature(scores, selected, base, strength), base)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_only_ratios_of_scores_matter(scale):
    scores = np.asarray([0.1, 0.2, 0.3, 0.7, 0.9], np.float32)
    tau = temperature(np.float32(scale) * scores, np.ones(5, bool), 1.0, 0.5)
    np.testing.assert_allclose(tau, oracle.idts(scores, np.ones(5, bool)), rtol=1e-5)


def test_zero_and_infinite_scores_reach_the_bounds():
    scores = np.asarray([0.0, 0.5, 0.5, 0.5, np.inf], np.float32)
    tau = temperature(scores, np.ones(5, bool))
    np.testing.assert_allclose(tau, np.exp([0.5, 0.0, 0.0, 0.0, -0.5]), rtol=1e-6)


def test_no_gradient():
    scores, selected = jnp.asarray([0.1, 0.5, 0.9]), jnp.ones(3, bool)
    gradient = jax.jit(jax.grad(lambda s: idts_temperature(s, selected).sum()))(scores)
    np.testing.assert_array_equal(gradient, 0.0)


CONFIGS = {
    "fixed": FixedTemperature(base=2.0),
    "idts": Idts(base=2.0, strength=0.3, inverse=False),
}


@pytest.mark.parametrize("kind", sorted(TEMPERATURES))
def test_chosen_by_config(kind, signals):
    scores, selected = jnp.asarray([0.1, 0.5, 0.9]), jnp.ones(3, bool)
    config = DistillConfig(temperature=CONFIGS[kind])
    run = jax.jit(token_temperature, static_argnums=0)
    student, teacher = run(config, scores, selected, None, None, signals())
    strength = 0.3 if kind == "idts" else 0.0
    np.testing.assert_allclose(student, oracle.idts(scores, selected, 2.0, strength, False), 1e-6)
    np.testing.assert_array_equal(student, teacher)
