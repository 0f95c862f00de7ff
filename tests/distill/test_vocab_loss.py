"""The chunked loss equals the dense one in value, report and gradient."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.axes import IGNORE
from adakd_jax.config import distill as settings
from adakd_jax.config.distill import DistillConfig
from adakd_jax.distill import (
    Features,
    Signals,
    distillation_loss,
    vocab_distillation_loss,
    vocab_passes,
)
from tests.distill.vocab_case import (
    SHAPE,
    SLOTS,
    VOCABULARY,
    a_case,
    assert_near,
    head_logits,
    heads,
)


@partial(jax.jit, static_argnums=(0, 1, 2))
def run(kind, config, options, case, ratio, cotangent=1.0):
    chunk_size, biased, scale, soft_cap = options
    teacher_features = jnp.stack([jnp.sin(case.teacher), case.teacher], axis=-2)

    def value(student, weight, bias, learned):
        signals = Signals(ratio, jnp.float32(0.3), jax.random.key(3), learned)
        features = None
        if config.has_features:
            features = Features(jnp.stack([student**2, student], axis=-2), teacher_features)
        student_head, teacher_head = heads(
            case, (weight, bias), biased=biased, scale=scale, soft_cap=soft_cap
        )
        if kind == "chunked":
            loss, report = vocab_distillation_loss(
                config, student, student_head, case.teacher, teacher_head, case.labels, signals,
                chunk_size=chunk_size, features=features,
            )  # fmt: skip
        else:
            logits = (
                head_logits(student, student_head, VOCABULARY),
                head_logits(case.teacher, teacher_head, VOCABULARY),
            )
            loss, report = distillation_loss(
                config, *logits, case.labels, signals, features=features
            )
        return cotangent * loss, report

    learned = {
        "temperature": jnp.float32(1.4),
        "projector": jnp.sin(jnp.arange(24.0)).reshape(4, 6),
    }
    arguments = case.student, case.student_weight, case.student_bias, learned
    return jax.value_and_grad(value, (0, 1, 2, 3), has_aux=True)(*arguments)


def agree(config, case, ratio, chunk_size=4, biased=True, scale=0.7, soft_cap=5.0, cotangent=1.0):
    options = (chunk_size, biased, scale, soft_cap)
    chunked = run("chunked", config, options, case, np.float32(ratio), cotangent)
    dense = run("dense", config, options, case, np.float32(ratio), cotangent)
    assert_near(chunked, dense)
    return chunked


EACH = [(slot, rule) for slot, found in SLOTS.items() for rule in found]


@pytest.mark.parametrize(("slot", "rule"), EACH, ids=[f"{s}-{r.kind}" for s, r in EACH])
def test_each_rule_against_defaults(slot, rule):
    agree(DistillConfig(**{slot: rule}), a_case(), 0.6)


@pytest.mark.parametrize(
    "seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(12, 40))]
)
def test_random_combinations(seed):
    rng = np.random.default_rng(seed)
    pick = {slot: found[rng.integers(len(found))] for slot, found in SLOTS.items()}
    config = DistillConfig(
        **pick,
        scale_by_squared_temperature=bool(rng.integers(2)),
        ce_weight=float(rng.choice([0.0, 0.4])),
        kd_weight=float(rng.choice([1.0, 0.6])),
        kd_weight_end=[None, 0.1][rng.integers(2)],
        feature_weight=float(rng.choice([0.0, 0.0, 0.5])),
        keep_logits=str(rng.choice(["none", "float32"])),
    )
    agree(
        config,
        a_case(seed, masked=rng.choice([0.0, 0.3, 0.8])),
        rng.uniform(0.1, 1.0),
        chunk_size=int(rng.choice([1, 3, 5, 40])),
        biased=bool(rng.integers(2)),
        soft_cap=[None, 5.0][rng.integers(2)],
    )


@pytest.mark.parametrize("with_others", [0.0, 0.5])
def test_no_response_token(with_others):
    case = a_case()._replace(labels=np.full(SHAPE, IGNORE, np.int32))
    config = DistillConfig(ce_weight=with_others, feature_weight=with_others)
    (loss, _), gradient = agree(config, case, 0.5)
    assert float(loss) == 0.0
    assert all((np.asarray(g) == 0.0).all() for g in jax.tree.leaves(gradient))


FINE_TUNING = DistillConfig(kd_weight=0.0, ce_weight=1.0)


def test_fine_tuning_needs_no_teacher():
    case = jax.tree.map(jnp.asarray, a_case())
    (loss, _), gradient = agree(FINE_TUNING, case, 0.5)
    student_head, _ = heads(case)
    alone, seen = vocab_distillation_loss(
        FINE_TUNING, case.student, student_head, None, None, case.labels,
        Signals(jnp.float32(1.0), jnp.float32(0.3)), chunk_size=4,
    )  # fmt: skip
    np.testing.assert_allclose(alone, loss, rtol=1e-6)
    logits = np.asarray(head_logits(case.student, student_head, VOCABULARY), np.float64)
    picked = np.take_along_axis(logits, np.maximum(case.labels, 0)[..., None], -1)[..., 0]
    surprise = np.log(np.exp(logits).sum(-1)) - picked
    expected = surprise[case.labels != IGNORE].mean()
    np.testing.assert_allclose([alone, seen.ce], expected, rtol=1e-5)
    assert float(seen.kd) == float(seen.forward_kl_sum) == 0.0 and np.abs(gradient[0]).max() > 0


def test_distillation_without_a_teacher_is_refused():
    case = jax.tree.map(jnp.asarray, a_case())
    signals = Signals(jnp.float32(1.0), jnp.float32(0.0))
    with pytest.raises(ValueError, match="teacher: kd_weight or feature_weight > 0 needs"):
        vocab_distillation_loss(
            DistillConfig(), case.student, heads(case)[0], None, None, case.labels, signals
        )


@pytest.mark.parametrize("config", [
    DistillConfig(feature_weight=0.7),
    DistillConfig(kd_weight=0.0, feature_weight=1.0),
    DistillConfig(kd_weight=0.0, ce_weight=0.3, feature_weight=1.0, feature_weight_end=0.1),
    DistillConfig(temperature=settings.Ctkd(), ce_weight=0.2),
], ids=["beside", "alone", "moving", "learned temperature"])  # fmt: skip
def test_other_terms(config):
    (_, report), gradient = agree(config, a_case(), 0.6, cotangent=3.0)
    learned = {name: float(np.abs(g).max()) for name, g in gradient[3].items()}
    assert (learned["projector"] > 0) == config.has_features == (float(report.feature) > 0)
    assert (learned["temperature"] > 0) == (config.temperature.kind == "ctkd")


@pytest.mark.parametrize("config", [
    DistillConfig(temperature=settings.Idts(differentiable=True), ce_weight=0.3),
    DistillConfig(
        score=settings.LogTokuScore(), focus=settings.TopRatio(ratio=0.6), keep_logits="float32",
        temperature=settings.Idts(median="row", differentiable=True),
        divergence=settings.ForwardKl(), scale_by_squared_temperature=False,
    ),
    DistillConfig(temperature=settings.Idts(median="row"), focus=settings.AllTokens()),
], ids=["batch", "row", "row of constants"])  # fmt: skip
def test_gradient_through_temperatures(config):
    (_, _), gradient = agree(config, a_case(), 0.6, cotangent=3.0)
    still = config.model_copy(update={"temperature": settings.Idts()})
    (_, _), other = run("dense", still, (4, True, 0.7, 5.0), a_case(), np.float32(0.6), 3.0)
    assert np.abs(gradient[0] - other[0]).max() > 1e-3 * np.abs(other[0]).max()


@pytest.mark.parametrize("temperature", [
    settings.Idts(), settings.Idts(differentiable=True), settings.FixedTemperature(),
], ids=["constant", "through", "fixed"])  # fmt: skip
def test_norm_of_each_tokens_gradient(temperature):
    """That of w·τ²·D with respect to the logits, by differentiating whole ones."""
    case, signals = jax.tree.map(jnp.asarray, a_case()), Signals(jnp.float32(0.6), jnp.float32(0.3))
    config = DistillConfig(temperature=temperature)
    student_head, teacher_head = heads(case, scale=1.0, soft_cap=None)

    @jax.jit
    def chunked(hidden):
        return vocab_distillation_loss(
            config, hidden, student_head, case.teacher, teacher_head, case.labels, signals,
            chunk_size=4, gradient_norms=True,
        )  # fmt: skip

    (_, report), _ = jax.value_and_grad(chunked, has_aux=True)(case.student)
    teacher = head_logits(case.teacher, teacher_head, VOCABULARY)
    of_logits = jax.jit(
        jax.grad(lambda z: distillation_loss(config, z, teacher, case.labels, signals)[0])
    )(head_logits(case.student, student_head, VOCABULARY))
    kept = float(report.selected.sum())
    expected = np.linalg.norm(np.asarray(of_logits, np.float64), axis=-1) * kept
    np.testing.assert_allclose(report.gradient_norms, expected, 1e-5, 1e-7)
    assert np.isnan(chunked(case.student)[1].gradient_norms[case.labels != IGNORE]).all()


def test_one_response_token():
    labels = np.full(SHAPE, IGNORE, np.int32)
    labels[1, 3] = 2
    (_, report), _ = agree(DistillConfig(), a_case()._replace(labels=labels), 0.1)
    assert int(report.selected_tokens) == 1


@pytest.mark.parametrize("rule", [settings.FixedTemperature(base=2.0), settings.Ctkd()], ids=str)
def test_scores_that_decide_nothing_need_no_pass_of_their_own(monkeypatch, rule):
    """One visit of the tokens gives what two gave, the reported scores among it."""
    config = DistillConfig(focus=settings.AllTokens(), temperature=rule, ce_weight=0.2)

    def products():
        run.clear_cache()
        lowered = run.lower("chunked", config, (4, True, 0.7, None), a_case(), np.float32(0.6))
        return lowered.as_text().count("stablehlo.while"), agree(config, a_case(), 0.6)

    loops, once = products()
    monkeypatch.setattr(vocab_passes, "needs_survey", lambda config: True)
    more, twice = products()
    run.clear_cache()
    assert (loops, more) == (1, 2) and float(np.ptp(once[0][1].scores)) > 0
    assert_near(once, twice, rtol=1e-6)


def test_any_cotangent():
    agree(DistillConfig(ce_weight=0.3), a_case(), 0.5, cotangent=-37.5)


def test_prompt_may_be_broken():
    case = a_case()
    prompt = (case.labels == IGNORE)[..., None]
    spoiled = case._replace(
        student=np.where(prompt, np.float32(np.nan), case.student),
        teacher=np.where(prompt, np.float32(np.inf), case.teacher),
    )
    options = (4, True, 0.7, 5.0)
    clean, other = (
        run("chunked", DistillConfig(), options, c, np.float32(0.6)) for c in (case, spoiled)
    )
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("divergence", SLOTS["divergence"], ids=lambda rule: rule.kind)
def test_equal_models_have_no_loss_and_no_gradient(divergence):
    case = a_case(rows=(VOCABULARY + 3, VOCABULARY + 3))
    case = case._replace(
        teacher=case.student, teacher_weight=case.student_weight, teacher_bias=case.student_bias
    )
    config = DistillConfig(divergence=divergence)
    (loss, _), gradient = run("chunked", config, (4, True, 1.0, None), case, np.float32(0.6))
    np.testing.assert_allclose(loss, 0.0, atol=1e-6)
    for g in gradient[:3]:
        np.testing.assert_allclose(g, 0.0, atol=1e-6)


@pytest.mark.parametrize("divergence", SLOTS["divergence"], ids=lambda rule: rule.kind)
def test_ruled_out_and_underflowing_tokens_are_finite(divergence):
    case = a_case()
    student_bias, teacher_bias = case.student_bias.copy(), case.teacher_bias.copy()
    student_bias[0] = teacher_bias[0] = student_bias[1] = teacher_bias[2] = -np.inf
    student_bias[3] = teacher_bias[4] = 300.0
    case = case._replace(student_bias=student_bias, teacher_bias=teacher_bias)
    config = DistillConfig(divergence=divergence)
    found = run("chunked", config, (4, True, 1.0, None), case, np.float32(0.6))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def test_tied_head_adds_up():
    """A tied embedding gets the head's gradient and the body's."""
    case = jax.tree.map(jnp.asarray, a_case(rows=(VOCABULARY, VOCABULARY + 5)))
    ids = jnp.where(case.labels == IGNORE, 1, case.labels)

    @partial(jax.jit, static_argnums=0)
    def gradient(kind, table):
        def value(table):
            hidden = jnp.tanh(table[ids])
            student_head, teacher_head = heads(case, (table, None), biased=True)
            student_head = student_head._replace(bias=None)
            signals = Signals(jnp.float32(0.5), jnp.float32(0.3))
            rest = (case.labels, signals)
            if kind == "chunked":
                return vocab_distillation_loss(
                    DistillConfig(), hidden, student_head, case.teacher, teacher_head, *rest,
                    chunk_size=5,
                )[0]  # fmt: skip
            logits = (
                head_logits(hidden, student_head, VOCABULARY),
                head_logits(case.teacher, teacher_head, VOCABULARY),
            )
            return distillation_loss(DistillConfig(), *logits, *rest)[0]

        return jax.grad(value)(table)

    chunked, dense = (
        gradient("chunked", case.student_weight),
        gradient("dense", case.student_weight),
    )
    np.testing.assert_allclose(chunked, dense, 1e-5, 1e-5 * np.abs(dense).max())


def test_bfloat16_hidden_states_give_float32_gradients_of_the_head():
    case = a_case()
    narrow = case._replace(
        student=case.student.astype(jnp.bfloat16), teacher=case.teacher.astype(jnp.bfloat16)
    )
    options = (4, True, 0.7, None)
    (loss, _), gradient = run("chunked", DistillConfig(), options, narrow, np.float32(0.6))
    (expected, _), exact = run("chunked", DistillConfig(), options, case, np.float32(0.6))
    assert gradient[0].dtype == jnp.bfloat16 and gradient[1].dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=0.05)
    np.testing.assert_allclose(gradient[1], exact[1], atol=0.05 * np.abs(exact[1]).max())


def test_compiles_once_however_ratio_and_mask_move():
    traces = []

    @jax.jit
    def value(case, ratio):
        traces.append(1)
        student_head, teacher_head = heads(case)
        signals = Signals(ratio, jnp.float32(0.0))
        return vocab_distillation_loss(
            DistillConfig(), case.student, student_head, case.teacher, teacher_head, case.labels,
            signals, chunk_size=4,
        )[1].selected_tokens  # fmt: skip

    kept = [
        int(value(a_case(0, masked), np.float32(ratio)))
        for masked, ratio in itertools.product((0.0, 0.5), (1.0, 0.5))
    ]
    assert len(traces) == 1 and kept[0] == 18 and kept[1] == 9 and kept[2] > kept[3]


def test_bad_chunk_size_and_features_are_refused():
    case = jax.tree.map(jnp.asarray, a_case())
    student_head, teacher_head = heads(case)
    arguments = (
        DistillConfig(), case.student, student_head, case.teacher,
        teacher_head, case.labels, Signals(jnp.float32(1.0), jnp.float32(0.0)),
    )  # fmt: skip
    with pytest.raises(ValueError, match="chunk_size = -3 must be at least 1"):
        vocab_distillation_loss(*arguments, chunk_size=-3)
    features = Features(jnp.ones((1, 4)), jnp.ones((1, 4)))
    with pytest.raises(ValueError, match="no feature term; pass features=None"):
        vocab_distillation_loss(*arguments, features=features)


def test_logits_kept_in_bfloat16_are_near():
    options = (4, True, 0.7, None)
    (loss, _), gradient = run(
        "chunked", DistillConfig(keep_logits="bfloat16"), options, a_case(), np.float32(0.6)
    )
    (expected, _), exact = run("dense", DistillConfig(), options, a_case(), np.float32(0.6))
    assert float(loss) != float(expected)
    np.testing.assert_allclose(loss, expected, rtol=0.02)
    for ours, theirs in zip(gradient[:3], exact[:3], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.05 * np.abs(theirs).max())
