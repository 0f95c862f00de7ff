"""The controller against plain Python, its gates, and its place in an optax chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adakd_jax.distill import LatfState, latf
from tests.distill import oracle

GRADS = {"kernel": jnp.arange(3.0)}


def _ratios(transform, losses, tokens=1):
    """The ratio after each step, in one compiled scan."""

    def step(state, loss):
        _, state = transform.update(GRADS, state, None, kd_loss=loss, tokens=tokens)
        return state, state

    return jax.jit(lambda x: jax.lax.scan(step, transform.init(GRADS), x))(jnp.asarray(losses))[1]


@pytest.mark.parametrize(
    ("warmup", "settings"),
    [
        (25, {}),
        (1, {"ema": 0.0, "tolerance": 0.2, "step_size": 0.3, "min_ratio": 0.25}),
        (7, {"ema": 0.9, "tolerance": 0.02, "step_size": 0.1, "min_ratio": 0.5}),
    ],
)
def test_oracle_over_500_losses_with_jumps(warmup, settings):
    rng = np.random.default_rng(warmup)
    trend = 2.0 * np.exp(-np.arange(500) / 150.0)
    trend[200:320] *= 3.0
    trend[400:] *= 0.3
    losses = (trend * rng.lognormal(0.0, 0.2, 500)).astype(np.float32)
    names = {"ema": "beta", "tolerance": "tolerance", "step_size": "step", "min_ratio": "floor"}
    expected = oracle.latf(losses, warmup, **{names[k]: v for k, v in settings.items()})
    states = _ratios(latf(warmup, **settings), losses)
    np.testing.assert_allclose(states.keep_ratio, expected, rtol=1e-4)
    assert len(np.unique(np.round(expected, 6))) > 3
    np.testing.assert_array_equal(states.count, np.arange(1, 501))


def test_ratio_falls_with_the_loss_and_rebounds_on_a_jump():
    losses = np.concatenate([np.linspace(2.0, 0.5, 200), np.full(60, 3.0)]).astype(np.float32)
    ratio = np.asarray(_ratios(latf(10, ema=0.9), losses).keep_ratio)
    assert (ratio[:10] == 1.0).all()
    assert ratio[199] < 0.5
    assert ratio[259] > 1.5 * ratio[199]
    assert (np.diff(ratio[10:200]) <= 0).all() and (np.diff(ratio[205:]) >= 0).all()


def test_bounds():
    falling = np.geomspace(1.0, 1e-9, 300).astype(np.float32)
    ratio = np.asarray(_ratios(latf(1, ema=0.0, min_ratio=0.2), falling).keep_ratio)
    assert ratio[-1] == np.float32(0.2) == ratio.min()
    rising = np.geomspace(1e-9, 1.0, 300).astype(np.float32)
    assert (np.asarray(_ratios(latf(1, ema=0.0), rising).keep_ratio) == 1.0).all()


@pytest.mark.parametrize(
    ("loss", "tokens"), [(np.nan, 5), (np.inf, 5), (-np.inf, 5), (1.0, 0), (np.nan, 0)]
)
def test_rejected_step_leaves_the_state_untouched(loss, tokens):
    transform = latf(1, ema=0.5)
    state = LatfState(jnp.int32(7), jnp.float32(1.5), jnp.float32(2.0), jnp.float32(0.7))
    _, after = transform.update(GRADS, state, None, kd_loss=jnp.float32(loss), tokens=tokens)
    assert all(a == b for a, b in zip(after, state, strict=True))
    assert [x.dtype for x in after] == [x.dtype for x in state]
    _, moved = transform.update(GRADS, state, None, kd_loss=jnp.float32(1.0), tokens=5)
    assert int(moved.count) == 8 and float(moved.keep_ratio) < 0.7


def test_in_a_chain():
    with jax.numpy_dtype_promotion("standard"):  # optax's AdamW mixes dtypes
        plain = optax.adamw(1e-2)
        chain = optax.chain(optax.clip_by_global_norm(1.0), plain, latf(2))
        state = chain.init(GRADS)
        assert float(optax.tree.get(state, "keep_ratio")) == 1.0
        for loss in (4.0, 3.0, 0.5):
            updates, state = chain.update(GRADS, state, GRADS, kd_loss=jnp.float32(loss), tokens=9)
        reference = optax.chain(optax.clip_by_global_norm(1.0), plain)
        other = reference.init(GRADS)
        for _ in range(3):
            expected, other = reference.update(GRADS, other, GRADS)
    np.testing.assert_array_equal(updates["kernel"], expected["kernel"])
    average = 0.99 * (0.99 * 4.0 + 0.01 * 3.0) + 0.01 * 0.5
    np.testing.assert_allclose(optax.tree.get(state, "ema"), average, rtol=1e-6)
    np.testing.assert_allclose(optax.tree.get(state, "reference"), 0.99 * 4.0 + 0.03, rtol=1e-6)


def test_arguments_are_checked_together():
    with pytest.raises(ValueError, match=r"warmup_steps = 0.*step_size = 1.0.*min_ratio = 0.0"):
        latf(0, step_size=1.0, min_ratio=0.0)
    with pytest.raises(ValueError, match=r"^latf: ema = 1.0 must be in \[0, 1\)$"):
        latf(1, ema=1.0)
    with pytest.raises(ValueError, match=r"^latf: tolerance = nan must be in \(0, 1\)$"):
        latf(1, tolerance=float("nan"))
