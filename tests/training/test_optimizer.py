import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adakd_jax.config import AllTokens, DistillConfig, OptimizerConfig
from adakd_jax.training.optimizer import build_optimizer, decayed, learning_rate_schedule


@pytest.mark.parametrize("shape", ["linear", "cosine", "wsd"])
@pytest.mark.parametrize("warmup", [0, 10])
def test_schedule_peaks_after_warmup_and_ends_at_the_final_rate(shape, warmup):
    config = OptimizerConfig(
        learning_rate=1e-3, final_learning_rate=1e-5, schedule=shape, warmup_steps=warmup
    )
    rate = learning_rate_schedule(config, 100)
    values = np.array([float(rate(k)) for k in range(100)])
    assert values.argmax() == warmup
    np.testing.assert_allclose(values.max(), 1e-3, rtol=1e-6)
    np.testing.assert_allclose(values[-1], 1e-5, rtol=1e-4)
    assert values[0] > 0
    assert np.all(np.diff(values[:warmup]) > 0)
    assert np.all(np.diff(values[warmup:]) <= 0)


def test_cosine_is_the_half_cosine_between_peak_and_final():
    config = OptimizerConfig(learning_rate=1.0, final_learning_rate=0.2, schedule="cosine")
    rate = learning_rate_schedule(config, 11)
    expected = 0.2 + 0.8 * (1 + np.cos(np.pi * np.arange(11) / 10)) / 2
    np.testing.assert_allclose([float(rate(k)) for k in range(11)], expected, rtol=1e-6)


def test_wsd_is_stable_then_decays_over_its_share():
    config = OptimizerConfig(learning_rate=1.0, schedule="wsd", decay_fraction=0.25)
    values = np.array([float(learning_rate_schedule(config, 100)(k)) for k in range(100)])
    assert np.all(values[:75] == 1.0)
    assert np.all(np.diff(values[75:]) < 0)


def test_constant_stays_at_the_peak():
    config = OptimizerConfig(learning_rate=0.5, schedule="constant", warmup_steps=3)
    rate = learning_rate_schedule(config, 10)
    np.testing.assert_allclose([float(rate(k)) for k in (0, 3, 9)], [0.125, 0.5, 0.5])


def test_weight_decay_leaves_norms_and_biases_alone():
    params = {"norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)}, "query": {"kernel": jnp.ones(2)}}
    assert decayed(params) == {
        "norm": {"scale": False, "bias": False},
        "query": {"kernel": True},
    }
    optimizer = build_optimizer(
        OptimizerConfig(weight_decay=0.5), DistillConfig(focus=AllTokens()), 10
    )
    zeros = {
        "norm": {"scale": jnp.zeros(2), "bias": jnp.zeros(2)},
        "query": {"kernel": jnp.zeros(2)},
    }
    updates, _ = optimizer.update(
        zeros, optimizer.init(params), params, kd_loss=jnp.float32(1), tokens=jnp.float32(1)
    )
    assert float(jnp.abs(updates["norm"]["scale"]).sum()) == 0.0
    assert np.all(np.asarray(updates["query"]["kernel"]) < 0)


def test_latf_state_sits_in_the_optimizer_state():
    params = {"kernel": jnp.ones(2)}
    with_latf = build_optimizer(OptimizerConfig(), DistillConfig(), 10).init(params)
    assert float(optax.tree.get(with_latf, "keep_ratio")) == 1.0
    without = build_optimizer(OptimizerConfig(), DistillConfig(focus=AllTokens()), 10).init(params)
    assert optax.tree.get(without, "keep_ratio") is None


def test_clipping_bounds_the_gradient_norm_before_adam():
    config = OptimizerConfig(clip_norm=1.0, weight_decay=0.0)
    params = {"kernel": jnp.zeros(4)}
    optimizer = build_optimizer(config, DistillConfig(), 10)
    _, state = optimizer.update(
        {"kernel": jnp.full(4, 50.0)},
        optimizer.init(params),
        params,
        kd_loss=jnp.float32(1),
        tokens=jnp.float32(1),
    )
    np.testing.assert_allclose(
        np.linalg.norm(optax.tree.get(state, "mu")["kernel"]), 0.1, rtol=1e-5
    )
