"""The composed loss against the float64 oracle, and the identities it must keep."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.axes import IGNORE
from adakd_jax.config import (
    AllTokens,
    AlphaBeta,
    CosineRatio,
    Curriculum,
    DistillConfig,
    Dtkd,
    EntropyTemperature,
    FixedTemperature,
    ForwardKl,
    Idts,
    Latf,
    LinearRatio,
    LogitStandardization,
    ToDi,
    TopRatio,
    UniformScore,
)
from adakd_jax.distill import Features, Signals, denominators, distillation_loss
from tests.distill import oracle

PLAIN = DistillConfig(focus=AllTokens(), temperature=FixedTemperature())
CONFIGS = {
    "adakd": DistillConfig(),
    "plain": PLAIN,
    "uniform": DistillConfig(score=UniformScore(), ce_weight=0.5),
    "forward_kl": DistillConfig(divergence=ForwardKl(), ce_weight=0.3, kd_weight=0.7),
    "fixed_ratio_no_tau_squared": DistillConfig(
        focus=TopRatio(ratio=0.4),
        temperature=Idts(base=2.0, strength=0.3, inverse=False),
        scale_by_squared_temperature=False,
    ),
    "gradient_through_temperature": DistillConfig(temperature=Idts(differentiable=True)),
    "without_tau_squared": DistillConfig(scale_by_squared_temperature=False),
    "gradient_through_row_medians": DistillConfig(
        focus=TopRatio(ratio=0.7),
        temperature=Idts(base=2.0, inverse=False, median="row", differentiable=True),
        divergence=ForwardKl(),
        ce_weight=0.3,
    ),
    "egad": DistillConfig(
        focus=Curriculum(), temperature=EntropyTemperature(), divergence=ForwardKl()
    ),
    "abkd_linear_dtkd": DistillConfig(
        focus=LinearRatio(end=0.5), temperature=Dtkd(), divergence=AlphaBeta()
    ),
    "todi_standardized": DistillConfig(
        temperature=LogitStandardization(base=2.0), divergence=ToDi(), focus=CosineRatio(end=0.3)
    ),
    "moving_weights": DistillConfig(
        kd_weight=1.0, kd_weight_end=0.2, ce_weight=0.0, ce_weight_end=0.8, weight_schedule="cosine"
    ),
    "all_tokens_monitored": DistillConfig(
        focus=Latf(monitor="all_tokens"), temperature=FixedTemperature(base=2.0)
    ),
}


def loss_and_gradient(config, student, teacher, labels, signals, totals=None, cotangent=1.0):
    return _compiled(config, student, teacher, labels, signals, totals, cotangent)


@partial(jax.jit, static_argnums=0)
def _compiled(config, student, teacher, labels, signals, totals, cotangent):
    def value(student):
        loss, report = distillation_loss(
            config, student, teacher, labels, signals, denominators=totals
        )
        return cotangent * loss, report

    (loss, report), gradient = jax.value_and_grad(value, has_aux=True)(student)
    return loss, gradient, report


def _close(actual, expected, rtol=1e-5):
    expected = np.asarray(expected)
    np.testing.assert_allclose(actual, expected, rtol, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_oracle(name, batch, signals):
    config, ratio = CONFIGS[name], 0.6
    loss, gradient, report = loss_and_gradient(config, *batch, signals(ratio))
    value, expected, (parts,) = oracle.loss(config, *(x[None] for x in batch), ratio)
    _close(loss, value)
    _close(gradient, expected[0])
    for field in ("selected", "scores", "temperature"):
        _close(getattr(report, field), parts[field])
    np.testing.assert_array_equal(report.response, batch[2] != IGNORE)
    _close(report.kd, parts["kd"] / parts["kd_tokens"])
    _close(report.ce, parts["ce"] / parts["ce_tokens"])
    _close(report.forward_kl_sum, parts["forward_kl"])
    _close(report.reverse_kl_sum, parts["reverse_kl"])
    assert int(report.response_tokens) == parts["ce_tokens"]
    assert int(report.selected_tokens) == parts["kd_tokens"]
    whole = name == "all_tokens_monitored"
    _close(report.monitored_sum, parts["all_tokens" if whole else "kd"])
    assert int(report.monitored_tokens) == parts["ce_tokens" if whole else "kd_tokens"]


@pytest.mark.parametrize("name", ["adakd", "forward_kl"])
def test_micro_batches_add_up_to_the_step(name, signals):
    config, ratio = CONFIGS[name], 0.6
    rng = np.random.default_rng(7)
    student, teacher = 2.0 * rng.normal(size=(2, 3, 2, 8, 13)).astype(np.float32)
    labels = rng.integers(0, 13, (3, 2, 8)).astype(np.int32)
    labels[rng.random(labels.shape) < 0.4] = IGNORE
    labels[1, :, 3:] = IGNORE  # unequal counts: the mean of means would be another number
    labels[2] = IGNORE
    totals = denominators(config, jnp.asarray(labels), signals(ratio))
    parts = [
        loss_and_gradient(config, student[i], teacher[i], labels[i], signals(ratio), totals)
        for i in range(3)
    ]
    value, gradient, _ = oracle.loss(config, student, teacher, labels, ratio)
    _close(sum(float(p[0]) for p in parts), value)
    _close(np.stack([p[1] for p in parts]), gradient)


def test_micro_batches_of_plain_distillation_are_one_batch(batch, signals):
    config = PLAIN.model_copy(update={"ce_weight": 0.5})
    whole, whole_gradient, _ = loss_and_gradient(config, *batch, signals())
    totals = denominators(config, jnp.asarray(batch[2][:, None]), signals())
    parts = [
        loss_and_gradient(config, *(x[i : i + 1] for x in batch), signals(), totals)
        for i in range(2)
    ]
    _close(sum(float(p[0]) for p in parts), whole)
    _close(np.concatenate([p[1] for p in parts]), whole_gradient)


def test_denominators_count_per_micro_batch(signals):
    labels = np.where(np.arange(2 * 3 * 5).reshape(2, 3, 5) % 3 > 0, 1, IGNORE)
    count = jax.jit(denominators, static_argnums=0)
    assert count(DistillConfig(), labels, signals(0.55)) == (5 + 5, 20, 0)
    assert count(DistillConfig(), labels.reshape(6, 5), signals(0.55)) == (11, 20, 0)
    assert count(PLAIN, labels, signals(0.55)) == (20, 20, 0)


def test_everything_off_is_plain_distillation(batch, signals):
    neutral = DistillConfig(temperature=Idts(strength=0.0))
    expected = loss_and_gradient(PLAIN, *batch, signals())
    actual = loss_and_gradient(neutral, *batch, signals(1.0))
    _close(actual[0], expected[0], 1e-6)
    _close(actual[1], expected[1], 1e-6)


@pytest.mark.parametrize("name", ["adakd", "plain", "all_tokens_monitored"])
def test_equal_models_have_no_loss_and_no_gradient(name, batch, signals):
    student, _, labels = batch
    loss, gradient, report = loss_and_gradient(
        CONFIGS[name], student, student, labels, signals(0.6)
    )
    np.testing.assert_array_equal(loss, 0.0)
    np.testing.assert_array_equal(gradient, 0.0)
    np.testing.assert_array_equal(report.scores, 0.0)
    np.testing.assert_array_equal(report.temperature, CONFIGS[name].temperature.base)


def test_gradient_through_temperatures_is_finite_where_models_agree(batch, signals):
    """There, the released code's is NaN: the slope of a square root at 0. The limit is 0."""
    config = CONFIGS["gradient_through_temperature"]
    student, teacher, labels = batch[0].copy(), batch[1], batch[2]
    student[0, 4] = teacher[0, 4]
    _, gradient, _ = loss_and_gradient(config, student, teacher, labels, signals(1.0))
    arrays = student[None], teacher[None], labels[None]
    _close(gradient, oracle.loss(config, *arrays, 1.0)[1][0])
    np.testing.assert_array_equal(gradient[0, 4], 0.0)
    student[:, 3:] = teacher[:, 3:]  # the median is 0 too
    _, gradient, _ = loss_and_gradient(config, student, teacher, labels, signals(1.0))
    assert np.isfinite(gradient).all() and float(np.abs(gradient).max()) > 0.0


def test_padding_and_prompt_do_not_matter(batch, signals):
    loss, gradient, _ = loss_and_gradient(CONFIGS["forward_kl"], *batch, signals(0.6))
    masked = (batch[2] == IGNORE)[..., None]
    for filler in (7.0, np.nan, np.inf, -np.inf):
        spoiled = [np.where(masked, np.float32(filler), z) for z in batch[:2]]
        other = loss_and_gradient(CONFIGS["forward_kl"], *spoiled, batch[2], signals(0.6))
        np.testing.assert_array_equal(other[0], loss)
        np.testing.assert_array_equal(other[1], gradient)
    np.testing.assert_array_equal(np.where(masked, gradient, 0.0), 0.0)


def test_appended_padding_does_not_matter(batch, signals):
    loss, gradient, _ = loss_and_gradient(CONFIGS["adakd"], *batch, signals(0.6))
    widths = ((0, 0), (0, 3))
    padded = [np.pad(z, (*widths, (0, 0)), constant_values=9.0) for z in batch[:2]]
    labels = np.pad(batch[2], widths, constant_values=IGNORE)
    other = loss_and_gradient(CONFIGS["adakd"], *padded, labels, signals(0.6))
    _close(other[0], loss, 1e-6)
    _close(other[1][:, :8], gradient, 1e-6)


def test_order_of_rows_does_not_matter(batch, signals):
    loss, gradient, _ = loss_and_gradient(CONFIGS["adakd"], *batch, signals(0.6))
    other = loss_and_gradient(CONFIGS["adakd"], *(x[::-1] for x in batch), signals(0.6))
    _close(other[0], loss, 1e-6)
    _close(other[1][::-1], gradient, 1e-6)


def test_gradient_is_linear_in_the_cotangent(batch, signals):
    _, gradient, _ = loss_and_gradient(CONFIGS["adakd"], *batch, signals(0.6))
    scaled = loss_and_gradient(CONFIGS["adakd"], *batch, signals(0.6), None, -37.5)[1]
    _close(scaled, -37.5 * np.asarray(gradient), 1e-6)


@pytest.mark.parametrize("name", ["adakd", "forward_kl"])
def test_no_response_token(name, batch, signals):
    labels = np.full_like(batch[2], IGNORE)
    loss, gradient, report = loss_and_gradient(CONFIGS[name], *batch[:2], labels, signals(0.6))
    np.testing.assert_array_equal(loss, 0.0)
    np.testing.assert_array_equal(gradient, 0.0)
    sums = [x for x in jax.tree.leaves(report) if x.ndim == 0]
    np.testing.assert_array_equal(sums, 0.0)


def test_one_response_token(batch, signals):
    labels = np.full_like(batch[2], IGNORE)
    labels[1, 4] = 3
    loss, gradient, report = loss_and_gradient(CONFIGS["adakd"], *batch[:2], labels, signals(0.1))
    value, expected, _ = oracle.loss(
        CONFIGS["adakd"], *(x[None] for x in (*batch[:2], labels)), 0.1
    )
    _close(loss, value)
    _close(gradient, expected[0])
    assert int(report.selected_tokens) == 1


def test_tied_scores_keep_the_first_tokens(batch, signals):
    student, teacher = (np.broadcast_to(z[:1, :1], z.shape).copy() for z in batch[:2])
    _, _, report = loss_and_gradient(CONFIGS["adakd"], student, teacher, batch[2], signals(0.5))
    first = np.flatnonzero(batch[2] != IGNORE)[:5]
    np.testing.assert_array_equal(np.flatnonzero(report.selected), first)
    np.testing.assert_array_equal(report.temperature, 1.0)


@pytest.mark.parametrize("name", ["adakd", "forward_kl", "gradient_through_temperature"])
def test_ruled_out_tokens_are_finite(name, batch, signals):
    student, teacher, labels = (x.copy() for x in batch)
    student[..., 0] = teacher[..., 0] = -np.inf
    student[0, 4, 5] = teacher[0, 5, 6] = student[1, 2, labels[1, 2]] = -np.inf
    loss, gradient, report = loss_and_gradient(
        CONFIGS[name], student, teacher, labels, signals(0.6)
    )
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(report))
    assert np.abs(gradient).max() > 0


def test_broken_logits_are_not_hidden_by_the_selection(batch, signals):
    student = batch[0].copy()
    student[1, 3, 2] = np.nan
    loss, _, _ = loss_and_gradient(CONFIGS["adakd"], student, *batch[1:], signals(0.1))
    assert np.isnan(loss)


def test_bfloat16_logits_are_computed_in_float32(batch, signals):
    narrow = [np.asarray(z, jnp.bfloat16) for z in batch[:2]]
    loss, gradient, report = loss_and_gradient(CONFIGS["adakd"], *narrow, batch[2], signals(0.6))
    wide = [z.astype(np.float32) for z in narrow]
    expected = loss_and_gradient(CONFIGS["adakd"], *wide, batch[2], signals(0.6))
    assert loss.dtype == report.scores.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(loss, expected[0], rtol=1e-6)
    _close(np.asarray(gradient, np.float32), expected[1], 1e-2)


def test_finite_differences(batch, signals, float64):
    config = DistillConfig(focus=TopRatio(ratio=0.5), temperature=FixedTemperature(base=1.5))
    config = config.model_copy(update={"ce_weight": 0.4})
    student, teacher = (np.asarray(z, np.float64) for z in batch[:2])
    labels, direction = batch[2], np.random.default_rng(8).normal(size=student.shape)
    run = partial(loss_and_gradient, config)
    _, gradient, _ = run(student, teacher, labels, signals())
    ahead, behind = (
        run(student + e * direction, teacher, labels, signals()) for e in (1e-5, -1e-5)
    )
    assert gradient.dtype == jnp.float64
    slope = (ahead[0] - behind[0]) / 2e-5
    np.testing.assert_allclose(slope, np.sum(gradient * direction), rtol=1e-6)


def test_no_gradient_reaches_the_teacher_or_the_ratio(batch, signals):
    student, teacher, labels = (jnp.asarray(x) for x in batch)

    def value(teacher, ratio):
        signals = Signals(ratio, jnp.float32(0.0))
        return distillation_loss(DistillConfig(), student, teacher, labels, signals)[0]

    to_teacher, to_ratio = jax.jit(jax.grad(value, (0, 1)))(teacher, jnp.float32(0.6))
    np.testing.assert_array_equal(to_teacher, 0.0)
    assert float(to_ratio) == 0.0


def test_compiles_once_however_the_ratio_moves(batch, signals):
    traces = []

    @jax.jit
    def value(student, signals):
        traces.append(1)
        return distillation_loss(DistillConfig(), student, teacher, labels, signals)

    student, teacher, labels = (jnp.asarray(x) for x in batch)
    kept = [int(value(student, signals(r))[1].selected_tokens) for r in (1.0, 0.8, 0.1)]
    assert kept == [11, 8, 1] and len(traces) == 1


def test_features_without_a_feature_term(batch, signals):
    student, teacher, labels = (jnp.asarray(x) for x in batch)
    features = Features(jnp.ones((1, 4)), jnp.ones((1, 4)))
    with pytest.raises(ValueError, match="no feature term; pass features=None"):
        distillation_loss(PLAIN, student, teacher, labels, signals(), features=features)
