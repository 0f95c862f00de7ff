"""Strict dtypes for the pure mathematics, float64 on request, and one small batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.distill import Signals

SHAPE, VOCABULARY = (2, 8), 13


@pytest.fixture(autouse=True)
def strict_dtypes():
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def batch():
    """Student and teacher logits, labels with a masked prompt in each row; NumPy, float32."""
    rng = np.random.default_rng(0)
    student, teacher = 2.0 * rng.normal(size=(2, *SHAPE, VOCABULARY)).astype(np.float32)
    labels = rng.integers(0, VOCABULARY, SHAPE).astype(np.int32)
    labels[0, :3] = labels[1, :1] = labels[1, -1] = -100
    return student, teacher, labels


@pytest.fixture
def signals():
    return lambda ratio=1.0: Signals(jnp.float32(ratio), jnp.float32(0.5))
