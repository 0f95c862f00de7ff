"""The feature branch: which tokens, which layers, what distance, and that its buffer holds all."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.config import DistillConfig, HiddenStates
from adakd_jax.distill import Features, Signals, denominators, distillation_loss, mapped_layers
from adakd_jax.distill.features import hard_count, hard_tokens
from adakd_jax.distill.focus import entropy_ranks
from tests.distill import oracle_rules as oracle

WIDTHS, LAYERS = (5, 7), 2
CONFIG = DistillConfig(kd_weight=0.0, feature_weight=1.0)


def _normalized(x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def expected_loss(student, teacher, projector, hard):
    """Mean over hard tokens and layers of ‖LN(h·W) − LN(h_teacher)‖² / D."""
    each = [
        np.mean((_normalized(h @ projector) - _normalized(t)) ** 2)
        for i in zip(*np.nonzero(hard), strict=True)
        for h, t in zip(student[i], teacher[i], strict=True)
    ]
    return np.mean(each) if each else 0.0


def a_case(batch, seed=0):
    rng = np.random.default_rng(seed)
    shape = batch[2].shape
    student, teacher = (rng.normal(size=(*shape, LAYERS, w)).astype(np.float32) for w in WIDTHS)
    return Features(student, teacher), rng.normal(size=WIDTHS).astype(np.float32)


@partial(jax.jit, static_argnums=0)
def run(config, batch, features, projector, totals=None):
    def value(hidden, projector):
        signals = Signals(jnp.float32(1.0), jnp.float32(0.5), learned={"projector": projector})
        given = Features(hidden, features.teacher)
        return distillation_loss(config, *batch, signals, features=given, denominators=totals)

    return jax.value_and_grad(value, (0, 1), has_aux=True)(features.student, projector)


def hard_of(batch, threshold=0.5):
    mask = batch[2] != -100
    return mask & (oracle.ranks(oracle.scores("teacher_entropy", *batch), mask) > threshold + 1e-6)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_oracle(batch, threshold):
    features, projector = a_case(batch)
    config = CONFIG.model_copy(update={"features": HiddenStates(threshold=threshold)})
    (loss, report), _ = run(config, batch, features, projector)
    hard = hard_of(batch, threshold)
    np.testing.assert_array_equal(report.hard, hard)
    np.testing.assert_allclose(loss, expected_loss(*features, projector, hard), rtol=1e-5)
    np.testing.assert_allclose(report.feature, loss)


def test_gradient_is_that_of_the_hard_tokens(batch):
    features, projector = a_case(batch)
    _, (to_hidden, to_projector) = run(CONFIG, batch, features, projector)
    hard = hard_of(batch)
    assert (np.asarray(to_hidden)[~hard] == 0).all()
    rng = np.random.default_rng(1)
    direction = rng.normal(size=projector.shape), rng.normal(size=features.student.shape)
    student, wide = features.student.astype(float), projector.astype(float)
    ahead, behind = (
        expected_loss(student + e * direction[1], features.teacher, wide + e * direction[0], hard)
        for e in (1e-5, -1e-5)
    )
    slope = np.sum(to_projector * direction[0]) + np.sum(to_hidden * direction[1])
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-4)


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.77])
def test_the_count_follows_from_the_mask_and_the_buffer_is_large_enough(threshold):
    setting = HiddenStates(threshold=threshold)
    for tokens in range(25):
        mask = np.arange(24).reshape(4, 6) < tokens
        values = np.random.default_rng(tokens).random((4, 6), np.float32)
        values, mask = jnp.asarray(values), jnp.asarray(mask)
        hard = hard_tokens(setting, entropy_ranks(values, mask), mask)
        count = float(hard_count(setting, mask))
        assert count == int(hard.sum())
        assert count <= np.ceil((1 - threshold) * 23) + 1


def test_micro_batches_add_up(batch):
    features, projector = a_case(batch)
    labels = jnp.asarray(batch[2][:, None])
    totals = denominators(CONFIG, labels, Signals(jnp.float32(1.0), jnp.float32(0.5)))
    parts = [
        run(
            CONFIG, *jax.tree.map(lambda x, i=i: x[i : i + 1], (batch, features)), projector, totals
        )
        for i in range(2)
    ]
    counts = [int(hard_of(tuple(x[i : i + 1] for x in batch)).sum()) for i in range(2)]
    assert float(totals.feature) == sum(counts) and min(counts) > 0
    each = [
        expected_loss(
            features.student[i : i + 1],
            features.teacher[i : i + 1],
            projector,
            hard_of(tuple(x[i : i + 1] for x in batch)),
        )
        for i in range(2)
    ]
    expected = np.dot(each, counts) / sum(counts)
    np.testing.assert_allclose(sum(float(p[0][0]) for p in parts), expected, rtol=1e-5)


def test_equal_hidden_states_have_no_loss(batch):
    features, _ = a_case(batch)
    same = Features(features.student, features.student)
    (loss, _), gradient = run(CONFIG, batch, same, np.eye(WIDTHS[0], dtype=np.float32))
    np.testing.assert_allclose(loss, 0.0, atol=1e-10)
    for g in gradient:
        np.testing.assert_allclose(g, 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "layers", "expected"),
    [
        (1, (10, 30), ((9, 29),)),
        (2, (10, 30), ((4, 14), (9, 29))),
        (3, (3, 12), ((0, 3), (1, 7), (2, 11))),
    ],
)
def test_layers_are_mapped_evenly_and_end_with_the_last(count, layers, expected):
    assert mapped_layers(count, *layers) == expected


def test_more_layers_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"features\.layers = 4: .* valid: 1 to 3"):
        mapped_layers(4, 3, 12)


def test_what_is_missing_is_named(batch):
    signals = Signals(jnp.float32(1.0), jnp.float32(0.5))
    features, _ = a_case(batch)
    arrays = tuple(map(jnp.asarray, batch))
    with pytest.raises(ValueError, match="needs hidden states"):
        distillation_loss(CONFIG, *arrays, signals)
    with pytest.raises(ValueError, match=r"learned\['projector'\] \[Ds, Dt\] is missing"):
        distillation_loss(CONFIG, *arrays, signals, features=features)
