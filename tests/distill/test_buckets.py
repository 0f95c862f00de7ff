"""A teacher cut to k tokens and the mass of the rest: exact where nothing is cut, else a bound."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.config import distill as settings
from adakd_jax.config.distill import DistillConfig
from adakd_jax.distill import (
    CachedTeacher,
    Signals,
    bucket_logits,
    distillation_loss,
    divergence,
    to_buckets,
    vocab_distillation_loss,
)
from adakd_jax.distill.buckets import spread
from adakd_jax.distill.policy import survey
from tests.distill.vocab_case import SLOTS, VOCABULARY, a_case, assert_near, head_logits, heads

CACHEABLE = SLOTS | {
    "temperature": [
        rule for rule in SLOTS["temperature"] if rule.kind not in ("dtkd", "logit_standardization")
    ]
}


def cut(teacher_logits, labels, k):
    """What a cache of k tokens keeps, written down directly in float64."""
    z = np.asarray(teacher_logits, np.float64)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    ids = np.argsort(-log_p, axis=-1, kind="stable")[..., :k]
    known = np.maximum(labels, 0)[..., None]
    ids[..., -1:] = np.where((ids == known).any(-1, keepdims=True), ids[..., -1:], known)
    others = np.exp(log_p)
    np.put_along_axis(others, ids, 0.0, axis=-1)
    with np.errstate(divide="ignore"):
        tail = np.log(others.sum(-1))
    named = np.take_along_axis(log_p, ids, axis=-1)
    return CachedTeacher(
        *map(jnp.asarray, (ids.astype(np.int32), named.astype(np.float32), tail.astype(np.float32)))
    )


@partial(jax.jit, static_argnums=(0, 1))
def run(kind, config, case, cached, cotangent=1.0):
    """Loss, report and gradients of hidden states, weight, bias and learned temperature."""

    def value(student, weight, bias, learned):
        signals = Signals(jnp.float32(0.6), jnp.float32(0.3), jax.random.key(3), learned)
        student_head, teacher_head = heads(case, (weight, bias))
        if kind == "cached":
            loss, report = vocab_distillation_loss(
                config, student, student_head, None, None, case.labels, signals,
                chunk_size=4, cached=cached,
            )  # fmt: skip
        else:
            logits = head_logits(student, student_head, VOCABULARY)
            teacher = None
            if kind == "whole":
                teacher = head_logits(case.teacher, teacher_head, VOCABULARY)
            loss, report = distillation_loss(
                config, logits, teacher, case.labels, signals,
                cached=None if kind == "whole" else cached,
            )  # fmt: skip
        return cotangent * loss, report

    learned = {"temperature": jnp.float32(1.4)}
    arguments = case.student, case.student_weight, case.student_bias, learned
    return jax.value_and_grad(value, (0, 1, 2, 3), has_aux=True)(*arguments)


def cached_of(case, k):
    return cut(head_logits(case.teacher, heads(case)[1], VOCABULARY), case.labels, k)


def random_config(seed):
    rng = np.random.default_rng(seed)
    pick = {slot: found[rng.integers(len(found))] for slot, found in CACHEABLE.items()}
    return DistillConfig(
        **pick,
        ce_weight=float(rng.choice([0.0, 0.4])),
        keep_logits=str(rng.choice(["none", "float32"])),
        cached_tail=["bucket", "even"][seed % 2],
    )


CONFIGS = [
    DistillConfig(ce_weight=0.3),
    DistillConfig(temperature=settings.Idts(differentiable=True)),
    *map(random_config, range(3)),
]


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_chunks_equal_the_dense_loss_of_the_same_buckets(config):
    case = a_case(3)
    cached = cached_of(case, 4)
    assert_near(
        run("cached", config, case, cached, -3.0), run("buckets", config, case, cached, -3.0)
    )


EXACT = [
    (DistillConfig(score=settings.LabelGapScore(), ce_weight=0.5), VOCABULARY - 1),
    (DistillConfig(score=settings.NmtKdScore(k=3), divergence=settings.AdaptiveKl()), VOCABULARY),
    (
        DistillConfig(focus=settings.Curriculum(), temperature=settings.EntropyTemperature()),
        VOCABULARY - 1,
    ),
]


@pytest.mark.parametrize(("config", "k"), EXACT, ids=range(len(EXACT)))
def test_nothing_is_lost_where_nothing_is_cut(config, k):
    case = a_case(5)
    cached = cached_of(case, k)
    assert_near(run("cached", config, case, cached), run("whole", config, case, cached), 2e-5)


def test_the_loss_nears_that_of_the_whole_vocabulary_as_k_grows():
    case, config = a_case(1), DistillConfig(focus=settings.AllTokens())
    whole = run("whole", config, case, cached_of(case, 3))[0][0]
    errors = [
        abs(float(run("cached", config, case, cached_of(case, k))[0][0] - whole) / whole)
        for k in (1, 5, 10)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 1e-4


@pytest.fixture(scope="module")
def logits():
    rng = np.random.default_rng(0)
    student, teacher = 3.0 * rng.normal(size=(2, 40, 30)).astype(np.float32)
    labels = rng.integers(0, 30, 40).astype(np.int32)
    return tuple(map(jnp.asarray, (student, teacher, labels)))


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "hellinger", "tvd"])
def test_merging_tokens_only_hides_differences(logits, name):
    student, teacher, labels = logits
    whole = divergence(name, student, teacher)
    below = np.zeros_like(whole)
    for k in (2, 8, 20, 29):
        compared = to_buckets(student, cut(teacher, labels, k), labels)
        found = np.asarray(divergence(name, compared.student, compared.teacher))
        assert (found <= whole * (1 + 1e-5) + 1e-6).all()
        assert found.mean() > below.mean()
        below = found
    np.testing.assert_allclose(below, whole, rtol=1e-4, atol=1e-6)


def test_a_mass_that_is_spread_adds_up_and_keeps_its_tokens(logits):
    _, teacher, labels = logits
    cached = cut(teacher, labels, 4)
    log_p = np.asarray(spread(cached, 30), np.float64)
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(
        np.take_along_axis(log_p, np.asarray(cached.ids), -1), cached.log_probs
    )
    assert all(len(np.unique(row)) == 5 for row in log_p)
    nothing_left = spread(cut(teacher, labels, 29), 30)
    np.testing.assert_allclose(nothing_left, jax.nn.log_softmax(teacher), rtol=1e-4, atol=1e-5)


def test_labels_keep_their_probability(logits):
    student, teacher, labels = logits
    compared = to_buckets(student, cut(teacher, labels, 3), labels)
    picked = [
        np.take_along_axis(np.asarray(jax.nn.log_softmax(z)), y[:, None], -1)
        for z, y in ((student, labels), (compared.student, np.asarray(compared.labels)))
    ]
    np.testing.assert_allclose(picked[1], picked[0], rtol=1e-5)
    known = np.take_along_axis(np.asarray(compared.teacher), compared.labels[:, None], -1)
    expected = np.take_along_axis(np.asarray(jax.nn.log_softmax(teacher)), labels[:, None], -1)
    np.testing.assert_allclose(known, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "k"),
    [("student_confidence", 2), ("student_entropy", 2), ("ce_entropy", 2), ("nmtkd", 12)],
)
def test_scores_that_buckets_would_spoil_are_exact(logits, kind, k):
    student, teacher, labels = logits
    config = DistillConfig.model_validate({"score": {"kind": kind}, "focus": {"kind": "all"}})
    cached = cut(teacher, labels, k)
    compared = to_buckets(student, cached, labels)
    seen = survey(config, *compared).statistics
    np.testing.assert_allclose(
        seen, survey(config, student, teacher, labels).statistics, rtol=1e-4, atol=1e-6
    )


def test_gradient_of_buckets_is_that_of_the_sums(logits):
    student, teacher, labels = logits
    ids = cut(teacher, labels, 4).ids
    weights = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    member = (np.asarray(ids)[..., None] == np.arange(30)).any(1)

    def plain(z):
        named = jnp.take_along_axis(z, ids, -1)
        rest = jnp.log(jnp.sum(jnp.where(member, 0.0, jnp.exp(z)), -1, keepdims=True))
        return jnp.sum(weights * jnp.concatenate([named, rest], -1))

    found = jax.grad(lambda z: jnp.sum(weights * bucket_logits(z, ids)))(student)
    np.testing.assert_allclose(found, jax.grad(plain)(student), rtol=1e-4, atol=1e-6)


def test_a_small_remainder_is_not_lost_to_cancellation():
    logits = jnp.array([[20.0, -9.0, 0.5, -10.0]])
    rest = bucket_logits(logits, jnp.array([[0, 2]]))[0, -1]
    np.testing.assert_allclose(rest, np.log(np.exp(-9.0) + np.exp(-10.0)), rtol=1e-6)


def test_tokens_ruled_out_by_either_model_are_finite():
    student = jnp.array([[0.0, -jnp.inf, 1.0, -jnp.inf]])
    cached = CachedTeacher(jnp.array([[2, 1]]), jnp.array([[-0.5, -jnp.inf]]), jnp.array([-0.9]))

    def value(z):
        compared = to_buckets(z, cached, jnp.array([2]))
        return divergence("reverse_kl", compared.student, compared.teacher).sum()

    loss, gradient = jax.value_and_grad(value)(student)
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    only = bucket_logits(student, jnp.array([[0, 2]]))
    assert only[0, 2] == -jnp.inf
