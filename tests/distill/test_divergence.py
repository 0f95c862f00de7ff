"""Divergences against the float64 oracle, at equality and at the edges of float32."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from adakd_jax import distill
from adakd_jax.distill import DIVERGENCES
from tests.distill import oracle_rules as oracle

NAMES = sorted(DIVERGENCES)
INF = float("inf")
# Of the first order in q − p, unlike the others.
FIRST_ORDER = ("tvd",)
# What they hold constant has no finite differences.
DETACHED = ("adaptive_kl", "todi")


def divergence(name, student, teacher, **options):
    return distill.divergence(name, jnp.asarray(student), jnp.asarray(teacher), **options)


@partial(jax.jit, static_argnums=0)
def _compiled(name, student, teacher, cotangent):
    values, pull_back = jax.vjp(lambda z: divergence(name, z, teacher), student)
    return values, pull_back(cotangent)[0]


def _value_and_gradient(name, student, teacher, cotangent=None):
    if cotangent is None:
        cotangent = np.ones(student.shape[:-1], np.float32)
    values, gradient = _compiled(name, student, teacher, cotangent)
    return np.asarray(values), np.asarray(gradient)


def test_every_divergence_has_an_oracle():
    assert set(DIVERGENCES) == set(oracle.DIVERGENCES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.1, 2.0, 8.0])
def test_value_and_gradient_for_any_cotangent(name, scale):
    rng = np.random.default_rng(1)
    student, teacher = scale * rng.normal(size=(2, 6, 13)).astype(np.float32)
    cotangent = rng.normal(size=6).astype(np.float32)
    values, gradient = _value_and_gradient(name, student, teacher, cotangent)
    pairs = [
        oracle.value_and_gradient(name, *logits) for logits in zip(student, teacher, strict=True)
    ]
    expected = cotangent[:, None] * np.stack([pair[1] for pair in pairs])
    np.testing.assert_allclose(values, [pair[0] for pair in pairs], rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_equal_models_are_exactly_zero(name):
    rng = np.random.default_rng(2)
    logits = 5.0 * rng.normal(size=(6, 13)).astype(np.float32)
    cotangent = rng.normal(size=6).astype(np.float32)
    values, gradient = _value_and_gradient(name, logits, logits, cotangent)
    np.testing.assert_array_equal(values, 0.0)
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_nearly_equal_models_are_not_noise(name):
    rng = np.random.default_rng(3)
    teacher = rng.normal(size=(6, 13)).astype(np.float32)
    student = (teacher + 1e-3 * rng.normal(size=(6, 13))).astype(np.float32)
    values, _ = _value_and_gradient(name, student, teacher)
    expected = [
        oracle.value_and_gradient(name, s, t)[0] for s, t in zip(student, teacher, strict=True)
    ]
    assert max(expected) < (1e-3 if name in FIRST_ORDER else 1e-5)
    np.testing.assert_allclose(values, expected, rtol=2e-3)


P, Q = np.log(np.float32([[0.9, 0.1]])), np.log(np.float32([[0.1, 0.9]]))
PUBLISHED = [
    ("forward_kl", {}, 1.7578),
    ("reverse_kl", {}, 1.7578),
    ("symmetric_kl", {}, 2 * 1.75778),
    ("todi", {}, 2 * 1.75778),
    ("tvd", {}, 0.8),
    ("gkd_jsd", {"beta": 0.5}, 0.3681),
    ("gkd_jsd", {"beta": 0.25}, 0.2858),
    ("gkd_jsd", {"beta": 0.1}, 0.1463),
    ("gkd_jsd", {"beta": 0.0}, 1.7578),
    ("gkd_jsd", {"beta": 1.0}, 1.7578),
    ("hellinger", {}, 1.0 - 2 * np.sqrt(0.09)),
]


@pytest.mark.parametrize(("name", "options", "expected"), PUBLISHED)
def test_published_number(name, options, expected):
    np.testing.assert_allclose(divergence(name, Q, P, **options), expected, atol=5e-5)


OPTIONS = [
    ("jsd", {"lam": 0.5}),
    ("jsd", {"lam": 0.01}),
    ("skew_forward_kl", {"alpha": 0.0}),
    ("skew_forward_kl", {"alpha": 0.7}),
    ("skew_reverse_kl", {"alpha": 0.0}),
    ("skew_reverse_kl", {"alpha": 0.7}),
    ("adaptive_kl", {"mu": 0.0}),
    ("adaptive_kl", {"mu": 0.9}),
    ("adaptive_kl", {"mu": 1.0}),
    ("gkd_jsd", {"beta": 0.3}),
    *(
        ("alpha_beta", {"alpha": a, "beta": b})
        for a, b in ((1, 1), (0, 1), (1, 0), (0, 0.4), (0.4, 0), (0.5, -0.5), (-1, 1), (0, 0))
    ),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_options_and_limits(name, options):
    student, teacher = 2.0 * np.random.default_rng(8).normal(size=(2, 4, 13)).astype(np.float32)
    values, pull_back = jax.vjp(
        lambda z: divergence(name, z, teacher, **options), jnp.asarray(student)
    )
    (gradient,) = pull_back(jnp.ones(4))
    for i in range(4):
        value, expected = oracle.value_and_gradient(name, student[i], teacher[i], **options)
        np.testing.assert_allclose(values[i], value, rtol=2e-5)
        np.testing.assert_allclose(
            gradient[i], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
        )


@pytest.mark.parametrize(
    ("limit", "near"),
    [((0, 0.7), (1e-3, 0.7)), ((0.7, 0), (0.7, 1e-3)), ((0.5, -0.5), (0.5, -0.499))],
)
def test_alpha_beta_is_continuous_at_its_limits(limit, near):
    student, teacher = np.random.default_rng(9).normal(size=(2, 4, 13)).astype(np.float32)
    at, beside = (
        divergence("alpha_beta", student, teacher, alpha=a, beta=b) for a, b in (limit, near)
    )
    np.testing.assert_allclose(at, beside, rtol=1e-2)


def test_family_members_are_their_relatives(batch):
    student, teacher, _ = batch
    same = [
        (("alpha_beta", {"alpha": 1.0, "beta": 0.0}), ("forward_kl", {})),
        (("alpha_beta", {"alpha": 0.0, "beta": 1.0}), ("reverse_kl", {})),
        (("skew_forward_kl", {"alpha": 0.0}), ("forward_kl", {})),
        (("skew_reverse_kl", {"alpha": 0.0}), ("reverse_kl", {})),
        (("gkd_jsd", {"beta": 0.3}), ("jsd", {"lam": 0.7})),
    ]
    for pair in same:
        one, other = (divergence(name, student, teacher, **options) for name, options in pair)
        np.testing.assert_allclose(one, other, rtol=2e-5)


@pytest.mark.parametrize(("lam", "relative"), [(0.999, "forward_kl"), (0.001, "reverse_kl")])
def test_jsd_at_its_ends_is_a_small_multiple_of_one_kl(lam, relative):
    student, teacher = np.random.default_rng(10).normal(size=(2, 4, 13)).astype(np.float32)
    other = {"forward_kl": "reverse_kl", "reverse_kl": "forward_kl"}[relative]
    value = divergence("jsd", student, teacher, lam=lam) / min(lam, 1.0 - lam)
    np.testing.assert_allclose(value, divergence(relative, student, teacher), rtol=0.03)
    assert np.abs(value / divergence(other, student, teacher) - 1.0).max() > 0.1


def test_todi_has_the_value_of_symmetric_kl_and_another_gradient(batch):
    values, gradients = zip(
        *(_value_and_gradient(name, *batch[:2]) for name in ("todi", "symmetric_kl")), strict=True
    )
    np.testing.assert_allclose(*values, rtol=1e-5)
    assert np.abs(gradients[0] - gradients[1]).max() > 0.05 * np.abs(gradients[1]).max()


def test_bounds_at_disjoint_support():
    student, teacher = np.float32([[0, 0, -INF, -INF]]), np.float32([[-INF, -INF, 1, 0]])
    for name, most in (("hellinger", 1.0), ("tvd", 1.0), ("gkd_jsd", np.log(2.0))):
        np.testing.assert_allclose(divergence(name, student, teacher), most, rtol=1e-6)
    bound = -np.log(0.1)
    for name in ("skew_forward_kl", "skew_reverse_kl"):
        np.testing.assert_allclose(divergence(name, student, teacher), bound, rtol=1e-6)


def test_forward_kl_is_cross_entropy_minus_entropy(batch):
    student, teacher, _ = batch
    log_q, log_p = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (student, teacher))
    cross_entropy = -np.sum(np.exp(log_p) * log_q, axis=-1)
    entropy = -np.sum(np.exp(log_p) * log_p, axis=-1)
    values, _ = _value_and_gradient("forward_kl", student, teacher)
    np.testing.assert_allclose(values, cross_entropy - entropy, rtol=1e-5, atol=1e-6)
    assert np.abs(values - cross_entropy).min() > 0.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ruled_out", [-INF, -1e9, float(jnp.finfo(jnp.float32).min)])
def test_token_that_both_rule_out_does_not_exist(name, ruled_out):
    rng = np.random.default_rng(4)
    student, teacher = rng.normal(size=(2, 5, 9)).astype(np.float32)
    wide_student, wide_teacher = (
        np.concatenate([z, np.full((5, 3), ruled_out, np.float32)], axis=-1)
        for z in (student, teacher)
    )
    values, gradient = _value_and_gradient(name, student, teacher)
    wide_values, wide_gradient = _value_and_gradient(name, wide_student, wide_teacher)
    np.testing.assert_allclose(wide_values, values, rtol=1e-6)
    np.testing.assert_allclose(wide_gradient[:, :9], gradient, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(wide_gradient[:, 9:], 0.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_token_that_one_model_rules_out_is_finite(name, who):
    rng = np.random.default_rng(5)
    logits = dict(zip(("student", "teacher"), rng.normal(size=(2, 5, 9)), strict=True))
    logits[who][:, 2] = -INF
    student, teacher = (logits[k].astype(np.float32) for k in ("student", "teacher"))
    values, gradient = _value_and_gradient(name, student, teacher)
    assert np.isfinite(values).all() and (values > 0).all()
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_reverse_kl_pushes_the_student_off_what_the_teacher_rules_out():
    student, teacher = np.zeros((1, 4), np.float32), np.asarray([[0, 0, 0, -INF]], np.float32)
    values, gradient = _value_and_gradient("reverse_kl", student, teacher)
    assert gradient[0, 3] > 0 > gradient[0, 0]
    np.testing.assert_allclose(values, 0.25 * 104.0 + 0.25 * np.log(0.25) + 0.75 * np.log(0.75))


@pytest.mark.parametrize("name", NAMES)
def test_underflowing_probabilities(name):
    student = np.asarray([[0.0, -300.0, 5.0], [400.0, 0.0, 1.0]], np.float32)
    teacher = np.asarray([[-500.0, 0.0, 0.0], [0.0, 1.0, -350.0]], np.float32)
    values, gradient = _value_and_gradient(name, student, teacher)
    for i in range(2):
        value, expected = oracle.value_and_gradient(name, student[i], teacher[i])
        np.testing.assert_allclose(values[i], value, rtol=1e-5)
        np.testing.assert_allclose(gradient[i], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_logits_are_computed_in_float32(name, batch):
    student, teacher = (np.asarray(z, jnp.bfloat16) for z in batch[:2])
    values, gradient = _value_and_gradient(name, student, teacher)
    assert values.dtype == np.float32 and gradient.dtype == jnp.bfloat16
    wide, _ = _value_and_gradient(name, student.astype(np.float32), teacher.astype(np.float32))
    np.testing.assert_allclose(values, wide, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in DETACHED])
def test_finite_differences(name, float64):
    student, teacher = np.random.default_rng(6).normal(size=(2, 1, 5))
    teacher = jnp.asarray(teacher)
    check_grads(jax.jit(lambda z: divergence(name, z, teacher)), (jnp.asarray(student),), order=1)


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_to_the_teacher(name, batch):
    student = jnp.asarray(batch[0])
    gradient = jax.jit(jax.grad(lambda t: divergence(name, student, t).sum()))(batch[1])
    np.testing.assert_array_equal(gradient, 0.0)


def test_unknown_name_lists_the_valid_ones():
    zeros = jnp.zeros((1, 3))
    with pytest.raises(ValueError, match=r"unknown divergence 'kl'.*forward_kl, gkd_jsd"):
        divergence("kl", zeros, zeros)
