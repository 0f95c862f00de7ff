"""The k-th smallest number is the one that sorting finds, whatever the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adakd_jax.distill.order_statistics import kth_smallest

SIZE = 17
find = jax.jit(kth_smallest)
order = jax.jit(lambda values, index: jnp.sort(values)[index])


@jax.jit
def beside(values, one):
    """How a program orders the values around one; a denormal counts as 0, as devices have it."""
    return values < one, values == one, jnp.isnan(one)


# Ties, both zeros, denormals, numbers a bit apart, and what is no number.
SPECIAL = [0.0, -0.0, 1.0, 1.0 + 2**-23, -1.0, 1e-45, -1e-45, np.inf, -np.inf, np.nan, 3e38]
number = st.sampled_from(SPECIAL) | st.floats(width=32)


@settings(max_examples=200, deadline=None)
@given(st.lists(number, min_size=SIZE, max_size=SIZE), st.integers(0, SIZE - 1))
def test_it_is_what_sorting_gives(values, index):
    values = np.asarray(values, np.float32)
    found, sorted_out = find(values, np.int32(index)), order(values, np.int32(index))
    for ours, expected in zip(beside(values, found), beside(values, sorted_out), strict=True):
        np.testing.assert_array_equal(ours, expected)
    if abs(sorted_out) > 1e-37 or np.isnan(sorted_out):
        np.testing.assert_array_equal(found, sorted_out)


@pytest.mark.parametrize("size", [1, 1000])
def test_every_index_in_double_precision(float64, size):
    values = np.random.default_rng(0).normal(size=size).round(2)
    found = jax.jit(jax.vmap(kth_smallest, (None, 0)))(values, jnp.arange(size, dtype=jnp.int32))
    assert found.dtype == jnp.float64
    np.testing.assert_array_equal(found, np.sort(values))
