"""Per-token temperatures against the formula with tanh and log, and where that formula breaks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adakd_jax.config import (
    AllTokens,
    Ctkd,
    DistillConfig,
    Dtkd,
    EntropyTemperature,
    FixedTemperature,
    Idts,
    LogitStandardization,
)
from adakd_jax.distill import (
    TEMPERATURES,
    Signals,
    distillation_loss,
    idts_temperature,
    token_temperature,
)
from tests.distill import oracle, oracle_rules

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


def test_gradient_where_it_is_asked_for():
    """dτ/ds by the formula; that of the median is shared by those that equal it."""
    scores = np.float64([0.2, 0.5, 0.5, 0.9, 0.3, 0.7])
    selected = np.float64([1, 1, 1, 1, 1, 0]).astype(bool)
    cotangent = np.float64([1.0, -2.0, 0.5, 3.0, 0.7, 9.0])

    @jax.jit
    def pulled(scores):
        kept = jnp.asarray(selected)
        tau = idts_temperature(scores, kept, 2.0, 0.3, differentiable=True)
        return jnp.sum(tau * cotangent.astype(scores.dtype))

    gradient = jax.grad(pulled)(jnp.asarray(scores, jnp.float32))
    tau = oracle.idts(scores, selected, 2.0, 0.3)
    slope = cotangent * selected * -0.3 * tau * 4 * scores * 0.5 / (scores**2 + 0.25) ** 2
    expected = slope * 0.5
    expected[1:3] += np.sum(slope * -scores) / 2
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("scores", [
    [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5], [0.0, 0.5, 0.5, 0.9], [1e-30, 1e-20, 1.0, 2.0],
    [0.1, 0.2, 0.3, np.inf],
])  # fmt: skip
def test_gradient_is_finite_where_scores_are_zero_or_far_apart(scores):
    def total(scores, selected):
        return idts_temperature(scores, selected, differentiable=True).sum()

    for selected in (np.ones(4, bool), np.zeros(4, bool)):
        gradient = jax.jit(jax.grad(total))(np.float32(scores), selected)
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(np.asarray(gradient)[np.equal(scores, 0.0)], 0.0)


def test_median_of_each_row():
    rng = np.random.default_rng(0)
    scores, selected = rng.random(SHAPE).astype(np.float32), rng.random(SHAPE) < 0.7
    selected[1] = False
    tau = jax.jit(partial(idts_temperature, median="row"))(scores, selected)
    rows = [oracle.idts(*row) for row in zip(scores, selected, strict=True)]
    np.testing.assert_allclose(tau, rows, rtol=1e-5)
    np.testing.assert_array_equal(tau[1], 1.0)


SETTINGS = {
    "fixed": FixedTemperature(base=2.0),
    "idts": Idts(base=2.0, strength=0.3, inverse=False),
    "entropy": EntropyTemperature(min=0.5, max=1.5),
    "ctkd": Ctkd(),
    "dtkd": Dtkd(),
    "logit_standardization": LogitStandardization(base=2.0),
}
run = jax.jit(token_temperature, static_argnums=0)


def _temperatures(kind, student, teacher, scores=None, selected=None, progress=0.5):
    shape = np.shape(student)[:-1]
    scores = np.ones(shape, np.float32) if scores is None else scores
    selected = np.ones(shape, bool) if selected is None else selected
    learned = {"temperature": jnp.float32(1.7)}
    signals = Signals(jnp.float32(1.0), jnp.float32(progress), learned=learned)
    config = DistillConfig(temperature=SETTINGS[kind])
    return run(config, scores, selected, student, teacher, signals)


def test_every_rule_is_tried():
    assert set(TEMPERATURES) == set(SETTINGS)


@pytest.mark.parametrize("kind", ["fixed", "idts"])
def test_those_without_logits(kind, signals):
    scores, selected = jnp.asarray([0.1, 0.5, 0.9]), jnp.ones(3, bool)
    config = DistillConfig(temperature=SETTINGS[kind])
    student, teacher = run(config, scores, selected, None, None, signals())
    strength = 0.3 if kind == "idts" else 0.0
    np.testing.assert_allclose(student, oracle.idts(scores, selected, 2.0, strength, False), 1e-6)
    np.testing.assert_array_equal(student, teacher)


@pytest.mark.parametrize("inverse", [False, True])
def test_entropy_ranks_the_teacher(batch, inverse):
    student, teacher, labels = batch
    config = DistillConfig(temperature=EntropyTemperature(min=0.5, max=1.5, inverse=inverse))
    mask = labels != -100
    signals = Signals(jnp.float32(1.0), jnp.float32(0.5))
    tau, same = run(config, np.zeros(mask.shape, np.float32), mask, student, teacher, signals)
    u = oracle_rules.ranks(oracle_rules.scores("teacher_entropy", *batch), mask)
    np.testing.assert_allclose(tau[mask], 0.5 + (1 - u if inverse else u)[mask], rtol=1e-6)
    np.testing.assert_array_equal(tau, same)


@pytest.mark.parametrize("kind", ["dtkd", "logit_standardization"])
def test_those_that_see_logits(kind, batch):
    student, teacher = batch[:2]
    pair = _temperatures(kind, student, teacher)
    config = DistillConfig(temperature=SETTINGS[kind])
    base = getattr(SETTINGS[kind], "base", 1.0)
    for i in np.ndindex(student.shape[:-1]):
        expected = oracle.temperatures(
            config, base, student[i].astype(float), teacher[i].astype(float), student[i]
        )
        np.testing.assert_allclose([pair[0][i], pair[1][i]], expected[:2], rtol=1e-5)


@pytest.mark.parametrize("kind", ["dtkd", "logit_standardization"])
def test_impossible_tokens_do_not_count(kind, batch):
    student, teacher = batch[:2]
    wide = [np.concatenate([z, np.full((2, 8, 2), -np.inf, np.float32)], -1) for z in batch[:2]]
    for narrow, other in zip(
        _temperatures(kind, student, teacher), _temperatures(kind, *wide), strict=True
    ):
        np.testing.assert_allclose(other, narrow, rtol=1e-6)


@pytest.mark.parametrize("kind", ["ctkd", "logit_standardization"])
def test_impossible_tokens_leave_gradients_finite(kind, batch):
    student, teacher, labels = (x.copy() for x in batch)
    student[..., 0] = teacher[..., 0] = student[0, 4, 5] = -np.inf
    config = DistillConfig(temperature=SETTINGS[kind])

    def loss(z, tau):
        learned = Signals(jnp.float32(1.0), jnp.float32(0.5), learned={"temperature": tau})
        others = jnp.asarray(teacher), jnp.asarray(labels)
        return distillation_loss(config, z, *others, learned)[0]

    gradients = jax.jit(jax.grad(loss, (0, 1)))(student, jnp.float32(1.7))
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("kind", sorted(SETTINGS))
def test_constant_and_equal_logits_are_no_trouble(kind):
    zeros, other = np.zeros((3, 5), np.float32), np.float32([[1, 2, 3, 4, 5]] * 3)
    for student, teacher in ((zeros, zeros), (zeros, other), (other, zeros), (other, other)):
        config = DistillConfig(temperature=SETTINGS[kind])
        learned = {"temperature": jnp.float32(1.7)}
        signals = Signals(jnp.float32(1.0), jnp.float32(0.5), learned=learned)

        def loss(z, config=config, teacher=teacher, signals=signals):
            labels = jnp.ones(3, jnp.int32)
            return distillation_loss(config, z, jnp.asarray(teacher), labels, signals)[0]

        value, gradient = jax.value_and_grad(loss)(jnp.asarray(student))
        assert np.isfinite(value) and np.isfinite(gradient).all()
        if student is teacher:
            np.testing.assert_allclose(value, 0.0, atol=1e-6)


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_learned_temperature_climbs_against_the_loss(progress, batch):
    """The gradient of the loss with respect to T, reversed. Its strength is of the update."""
    student, teacher, labels = map(jnp.asarray, batch)
    config = DistillConfig(temperature=Ctkd(), focus=AllTokens())

    def loss(tau, how, rate):
        chosen = DistillConfig(temperature=how, focus=AllTokens())
        signals = Signals(jnp.float32(1.0), rate, learned={"temperature": tau})
        return distillation_loss(chosen, student, teacher, labels, signals)[0]

    rate = jnp.float32(progress)
    value, gradient = jax.value_and_grad(loss)(jnp.float32(1.7), config.temperature, rate)
    fixed = lambda t: float(loss(jnp.float32(1.0), FixedTemperature(base=t), rate))  # noqa: E731
    np.testing.assert_allclose(value, fixed(1.7), rtol=1e-6)
    # τ² is a constant: it is that of 1.7 at both sides.
    unscaled = [fixed(t) / t**2 for t in (1.69, 1.71)]
    slope = 1.7**2 * (unscaled[1] - unscaled[0]) / 0.02
    np.testing.assert_allclose(gradient, -slope, rtol=5e-3, atol=1e-7)


def test_a_learned_temperature_must_be_given(batch):
    signals = Signals(jnp.float32(1.0), jnp.float32(0.5))
    with pytest.raises(ValueError, match=r"ctkd: needs Signals\.learned\['temperature'\]"):
        distillation_loss(DistillConfig(temperature=Ctkd()), *map(jnp.asarray, batch), signals)


@pytest.mark.parametrize("kind", ["fixed", "idts", "entropy", "ctkd", "dtkd"])
def test_no_gradient_through_the_temperature(kind, batch):
    student, teacher = (jnp.asarray(z) for z in batch[:2])
    gradient = jax.grad(lambda z: _temperatures(kind, z, teacher)[0].sum())(student)
    np.testing.assert_array_equal(gradient, 0.0)
