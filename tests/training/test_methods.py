"""Every registered rule trains a tiny student, and what some methods train beside it."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adakd_jax import config as settings
from adakd_jax.config import (
    AlphaBeta,
    Ctkd,
    Curriculum,
    DistillConfig,
    EntropyTemperature,
    ForwardKl,
    HiddenStates,
    Latf,
    OptimizerConfig,
)
from adakd_jax.training.learned import build_learner
from adakd_jax.training.step import make_train_step
from tests.training.conftest import random_batch

STEPS = 12
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, schedule="constant", weight_decay=0.0)
EGAD = DistillConfig(
    focus=Curriculum(),
    temperature=EntropyTemperature(),
    divergence=ForwardKl(),
    feature_weight=1.0,
)


def variants(slot):
    return [kind() for kind in get_args(get_args(slot)[0])]


RULES = [
    (name, rule)
    for name, slot in {
        "score": settings.Score,
        "focus": settings.Focus,
        "temperature": settings.Temperature,
        "divergence": settings.Divergence,
    }.items()
    for rule in variants(slot)
]


def train(pair, distill, steps=STEPS, micro_batches=1):
    parts = pair.parts(distill, OPTIMIZER, steps)
    step, state = make_train_step(parts), pair.state(parts)
    batch, history = random_batch(0, micro_batches), []
    for _ in range(steps):
        state, metrics = step(state, pair.teaching(parts), batch)
        history.append(jax.device_get(metrics))
    assert step._cache_size() == 1 and int(state.skipped) == 0
    return state, history


def distances(history):
    return [float(metrics["forward_kl"] + metrics["reverse_kl"]) for metrics in history]


def marks(rule):
    """A train step is compiled for each: those of AdaKD at once, the others with the slow tests."""
    adakd = {"hellinger", "latf", "idts", "reverse_kl"}
    return () if rule.kind in adakd else pytest.mark.slow


@pytest.mark.parametrize(
    ("slot", "rule"),
    [pytest.param(s, r, id=f"{s}-{r.kind}", marks=marks(r)) for s, r in RULES],
)
def test_each_rule_brings_the_student_nearer(pair, slot, rule):
    _, history = train(pair, DistillConfig(**{slot: rule}))
    before, *_, after = distances(history)
    assert after < 0.9 * before
    assert all(np.isfinite(metrics["loss"]) for metrics in history)


def test_egad_trains_its_projection(pair):
    state, history = train(pair, EGAD)
    before, *_, after = distances(history)
    assert after < 0.9 * before
    assert history[-1]["feature_loss"] < history[0]["feature_loss"]
    assert state.learned is not None
    assert not np.array_equal(state.learned.values["projector"], np.eye(16))


def test_hidden_states_of_several_layers(pair):
    distill = DistillConfig(kd_weight=0.0, feature_weight=1.0, features=HiddenStates(layers=2))
    _, history = train(pair, distill)
    assert history[-1]["feature_loss"] < 0.8 * history[0]["feature_loss"]
    assert "kd_loss" not in history[0] and "keep_ratio" not in history[0]


def test_a_learned_temperature_moves_by_its_own_rate(pair):
    state, history = train(pair, DistillConfig(temperature=Ctkd(initial=2.0, learning_rate=0.1)))
    path = [float(metrics["learned_temperature"]) for metrics in history]
    # Adam's step is the learning rate, whatever the gradient, but for the strength λ of the step.
    strength = 0.5 * (1 - np.cos(np.pi * np.arange(STEPS) / STEPS))
    assert path[0] == 2.0
    moved = np.abs(np.diff(np.log([2.0, *path])))
    np.testing.assert_allclose(moved[1:4], 0.1 * strength[1:4], rtol=0.2)
    assert np.all(moved <= 0.1 * strength * 1.1 + 1e-6)
    assert min(path) > 0 and len(set(path)) == STEPS
    np.testing.assert_allclose(history[1]["temperature_q50"], path[0], rtol=1e-6)
    assert state.learned is not None


def test_the_strength_of_the_reversal_is_that_of_the_update():
    """λ = 0 does not move the temperature, and twice λ moves it twice as far, for any gradient."""
    learner = build_learner(
        DistillConfig(temperature=Ctkd(learning_rate=0.1)), OPTIMIZER, optax.constant_schedule(1.0)
    )
    values = {"log_temperature": jnp.float32(0.0)}

    def moved(progress, gradient):
        state = learner.init(values)
        for _ in range(3):
            grads = {"log_temperature": jnp.float32(gradient)}
            updates, state = learner.update(grads, state, values, progress=jnp.float32(progress))
        return float(updates["log_temperature"])

    assert moved(0.0, 3.0) == 0.0
    third, two_thirds = np.arccos(1 - 2 / 3) / np.pi, np.arccos(1 - 4 / 3) / np.pi
    for gradient in (1e-3, 5.0):
        np.testing.assert_allclose(moved(third, gradient), -0.1 / 3, rtol=1e-3)
        np.testing.assert_allclose(moved(two_thirds, gradient), -0.2 / 3, rtol=1e-3)


def test_fine_tuning_runs_without_a_teacher(pair):
    state, history = train(pair, DistillConfig(kd_weight=0.0, ce_weight=1.0))
    assert history[-1]["ce_loss"] < 0.8 * history[0]["ce_loss"]
    np.testing.assert_allclose(history[0]["loss"], history[0]["ce_loss"], rtol=1e-6)
    assert "reverse_kl" not in history[0] and "keep_ratio" not in history[0]
    assert optax.tree.get(state.opt_state, "keep_ratio") is None


def test_weights_move_with_the_optimizer_steps(pair):
    distill = DistillConfig(kd_weight=1.0, kd_weight_end=0.0, ce_weight=0.0, ce_weight_end=1.0)
    _, history = train(pair, distill, steps=4, micro_batches=3)
    for step, metrics in enumerate(history):
        share = step / 4
        expected = (1 - share) * metrics["kd_loss"] + share * metrics["ce_loss"]
        np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_a_review_step_trains_but_leaves_latf_alone(pair):
    focus = Latf(ema=0.0, tolerance=0.001, step_size=0.3, warmup_fraction=0.0)
    for chance in (0.0, 1.0):
        reviewed = focus.model_copy(update={"review_ratio": chance})
        state, history = train(pair, DistillConfig(focus=reviewed), steps=4)
        count = int(optax.tree.get(state.opt_state, "count", filtering=_of_latf))
        kept = [float(m["selected_tokens"] / m["response_tokens"]) for m in history]
        if chance:
            assert count == 0 and kept == [1.0] * 4
            assert history[-1]["reverse_kl"] < history[0]["reverse_kl"]
        else:
            assert count == 4 and kept[-1] < 0.75


def _of_latf(path, value):
    return "LatfState" in str(path)


def test_micro_batches_agree_about_a_review(pair):
    focus = Latf(review_ratio=0.5, ema=0.0, tolerance=0.001, step_size=0.5)
    parts = pair.parts(DistillConfig(focus=focus, divergence=AlphaBeta()), OPTIMIZER, 20)
    step, state = make_train_step(parts), pair.state(parts)
    shares = []
    for _ in range(20):
        state, metrics = step(state, pair.teacher_params, random_batch(1, micro_batches=3))
        shares.append(float(metrics["selected_tokens"] / metrics["response_tokens"]))
    later = shares[4:]
    assert 1.0 in later and min(later) < 0.6
    assert jnp.isfinite(metrics["loss"])
