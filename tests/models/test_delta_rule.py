"""The delta rule in chunks, against the recurrence token by token in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.models.delta_rule import causal_convolution, gated_delta_rule

ROWS, LENGTH, HEADS, GROUP, KEYS, VALUES = 2, 21, 2, 3, 5, 4
# Documents that begin inside a chunk of 8, at its start, and more than one in a chunk.
SEGMENTS = np.array([[1] * 5 + [2] * 11 + [3] * 3 + [0] * 2, [1] * 8 + [2] * 1 + [3] * 12])


def inputs():
    rng = np.random.default_rng(0)
    lead = (ROWS, LENGTH, HEADS)
    query, key = rng.normal(size=(2, *lead, KEYS))
    key /= np.linalg.norm(key, axis=-1, keepdims=True)
    value = rng.normal(size=(*lead, GROUP, VALUES))
    log_decay = -rng.exponential(0.5, size=(*lead, GROUP))
    write = rng.uniform(size=(*lead, GROUP))
    return query, key, value, log_decay, write


def by_token(numbers, segments, state, xp):
    """The rule as it is written; float64 in NumPy, or differentiable in JAX."""
    query, key, value, log_decay, write = numbers
    outputs = []
    for t in range(query.shape[1]):
        if t:
            state = state * (segments[:, t] == segments[:, t - 1])[:, None, None, None, None]
        state = state * xp.exp(log_decay[:, t])[..., None, None]
        held = xp.einsum("bkgde,bkd->bkge", state, key[:, t])
        change = write[:, t][..., None] * (value[:, t] - held)
        state = state + xp.einsum("bkd,bkge->bkgde", key[:, t], change)
        outputs.append(xp.einsum("bkgde,bkd->bkge", state, query[:, t]))
    return xp.stack(outputs, 1), state


def single(numbers):
    return [jnp.asarray(each, jnp.float32) for each in numbers]


@pytest.mark.parametrize("chunk", [8, 64])
def test_chunks_are_the_recurrence_within_documents(chunk):
    numbers = inputs()
    state = np.random.default_rng(1).normal(size=(ROWS, HEADS, GROUP, KEYS, VALUES))
    expected, last = by_token(numbers, SEGMENTS, state, np)
    run = jax.jit(gated_delta_rule, static_argnames="chunk")
    got, after = run(*single(numbers), SEGMENTS, jnp.float32(state), chunk=chunk)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)
    np.testing.assert_allclose(after, last, rtol=0, atol=2e-5)


def test_gradients_are_those_of_the_recurrence():
    numbers, segments = [each[:, :9] for each in single(inputs())], jnp.asarray(SEGMENTS[:, :9])
    state = jnp.zeros((ROWS, HEADS, GROUP, KEYS, VALUES))
    weights = jax.random.normal(jax.random.key(0), (ROWS, 9, HEADS, GROUP, VALUES))

    def loss(numbers, run):
        out, last = run(numbers)
        return jnp.sum(out * weights) + jnp.sum(jnp.square(last))

    got, expected = (
        jax.jit(jax.grad(lambda numbers, run=run: loss(numbers, run)))(numbers)
        for run in (
            lambda numbers: gated_delta_rule(*numbers, segments, state, chunk=4),
            lambda numbers: by_token(numbers, segments, state, jnp),
        )
    )
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=5e-5 * np.abs(other).max())


def test_strong_decay_and_equal_keys_stay_exact():
    """e^−30 a token, and a system of equations that is as badly conditioned as keys can make it."""
    query, key, value, log_decay, write = inputs()
    key[:] = key[:, :1]
    log_decay[:, ::4], log_decay[:, 1::4], write[:] = -30.0, 0.0, 1.0
    numbers = query, key, value, log_decay, write
    state = np.zeros((ROWS, HEADS, GROUP, KEYS, VALUES))
    expected, _ = by_token(numbers, SEGMENTS, state, np)
    got, _ = gated_delta_rule(*single(numbers), jnp.asarray(SEGMENTS), jnp.float32(state))
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-5)


def test_a_convolution_sees_its_own_document():
    rng = np.random.default_rng(2)
    x, taps = rng.normal(size=(ROWS, LENGTH, 6)), rng.normal(size=(4, 6))
    before = rng.normal(size=(ROWS, 3, 6))
    expected = np.zeros_like(x)
    for row in range(ROWS):
        for t in range(LENGTH):
            for lag in range(4):
                if t >= lag and SEGMENTS[row, t - lag] == SEGMENTS[row, t]:
                    expected[row, t] += x[row, t - lag] * taps[3 - lag]
                elif t < lag and SEGMENTS[row, t] == SEGMENTS[row, 0]:
                    expected[row, t] += before[row, t - lag] * taps[3 - lag]
    got = causal_convolution(*single([x, taps]), jnp.asarray(SEGMENTS), jnp.float32(before))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
