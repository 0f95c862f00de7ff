"""Small models as hidden states and heads, for losses that start from these."""

from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from adakd_jax.axes import IGNORE
from adakd_jax.config import distill as settings
from adakd_jax.distill import Head

SHAPE, VOCABULARY = (2, 9), 11


class Case(NamedTuple):
    """Hidden states [2, 9, D], heads' weights and biases, labels."""

    student: np.ndarray
    student_weight: np.ndarray
    student_bias: np.ndarray
    teacher: np.ndarray
    teacher_weight: np.ndarray
    teacher_bias: np.ndarray
    labels: np.ndarray


def a_case(seed=0, masked=0.35, rows=(VOCABULARY + 2, VOCABULARY + 5)):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    labels = rng.integers(0, VOCABULARY, SHAPE).astype(np.int32)
    labels[rng.random(SHAPE) < masked] = IGNORE
    return Case(
        draw(*SHAPE, 4), draw(rows[0], 4), draw(rows[0]),
        draw(*SHAPE, 6), draw(rows[1], 6), draw(rows[1]),
        labels,
    )  # fmt: skip


def heads(case, student=None, teacher=None, biased=True, scale=0.7, soft_cap=5.0):
    weights = (
        case.student_weight if student is None else student[0],
        case.teacher_weight if teacher is None else teacher[0],
    )
    biases = (
        case.student_bias if student is None else student[1],
        case.teacher_bias if teacher is None else teacher[1],
    )
    return (
        Head(weights[0], VOCABULARY, biases[0] if biased else None, scale, soft_cap),
        Head(weights[1], VOCABULARY + 3, biases[1] if biased else None, 1.0, None),
    )


def head_logits(hidden, head, size):
    z = (jnp.einsum("btd,vd->btv", hidden, head.weight))[..., :size]
    if head.bias is not None:
        z = z + head.bias[None, None, :size]
    z = z * head.scale
    return z if head.soft_cap is None else head.soft_cap * jnp.tanh(z / head.soft_cap)


def assert_near(one, other, rtol=1e-5, floor=1e-7):
    """Every leaf within rtol of the other and of its largest entry, which must be finite."""
    for ours, expected in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        expected = np.asarray(expected, np.float64)
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(ours, expected, rtol, rtol * np.abs(expected).max() + floor)


def rules(slot):
    return [kind() for kind in get_args(get_args(slot)[0])]


SLOTS = {
    "score": rules(settings.Score),
    "focus": rules(settings.Focus),
    "temperature": rules(settings.Temperature),
    "divergence": rules(settings.Divergence),
}
