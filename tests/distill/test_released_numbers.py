"""Numbers of the authors' released loss functions on fixed logits."""

from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from adakd_jax.config import (
    AlphaBeta,
    DistillConfig,
    FixedTemperature,
    ForwardKl,
    Idts,
    Jsd,
    ReverseKl,
    SkewForwardKl,
    SkewReverseKl,
    Tvd,
)
from adakd_jax.distill import distillation_loss, divergence, token_scores
from tests.distill import oracle_rules as oracle

NUMBERS = np.load(Path(__file__).parents[1] / "data" / "adakd_small.npz")
BATCH = tuple(NUMBERS[key] for key in ("student_logits", "teacher_logits", "labels"))
RESPONSE = BATCH[2] != -100
LOSSES = {
    "fkd": ForwardKl(),
    "rkd": ReverseKl(),
    "jsd": Jsd(),
    "tvd": Tvd(),
    "abkd": AlphaBeta(),
    "srkd": SkewReverseKl(),
    "sfkd": SkewForwardKl(),
}
# Released name → ours.
SCORES = {
    "hellinger": "hellinger",
    "prob": "student_confidence",
    "entropy": "student_entropy",
    "ce": "cross_entropy",
    "ce_entropy": "ce_entropy",
    "forwardkl": "forward_kl",
    "reversekl": "reverse_kl",
    "sensitivity_reverse": "sensitivity",
    "gt_prob": "label_gap",
    "jsd": "jsd",
    "bhattacharyya": "bhattacharyya",
    "logtoku": "logtoku",
    "nmtkd": "nmtkd",
}
EPSILON = 1e-8  # that the released code adds inside some logarithms
RATIOS = ("1.0", "0.5", "0.1")


def _close(actual, key, where=True, plus=0.0):
    expected = np.where(where, NUMBERS[key], 0.0)
    actual = np.where(where, np.asarray(actual) + plus, 0.0)
    np.testing.assert_allclose(actual, expected, 1e-5, 1e-5 * np.abs(expected).max())


def _left_out(released, tau=None):
    """What the released skewed forward KL lacks: Σ p log p at τ, of each token."""
    tau = np.ones(RESPONSE.shape) if tau is None else tau
    if released != "sfkd":
        return np.zeros(RESPONSE.shape)
    logits = NUMBERS["teacher_logits"]
    places = np.ndindex(RESPONSE.shape)
    entropies = [oracle.entropy(oracle.log_softmax(logits[i], tau[i])) for i in places]
    return np.reshape(entropies, RESPONSE.shape)


@partial(jax.jit, static_argnums=0)
def _loss_and_gradient(config, student, teacher, labels, signals):
    run = partial(distillation_loss, config)
    return jax.value_and_grad(run, has_aux=True)(student, teacher, labels, signals)


@pytest.mark.parametrize("released", sorted(SCORES))
def test_scores(released):
    scores = jax.jit(partial(token_scores, SCORES[released]))(*BATCH)
    if released == "gt_prob":
        surprise = jax.jit(partial(token_scores, "cross_entropy"))(*BATCH)
        inside = -np.log(np.exp(-surprise) + EPSILON)
        scores = scores / np.where(RESPONSE, surprise, 1.0) * inside
    _close(scores, f"scores/{released}", RESPONSE)


@pytest.mark.parametrize("released", sorted(LOSSES))
def test_divergence_of_each_token(released):
    name = LOSSES[released].kind

    @jax.jit
    def values_and_gradient(student, teacher):
        values, pull_back = jax.vjp(lambda z: divergence(name, z, teacher), student)
        return values, pull_back(RESPONSE.astype(np.float32))[0]

    values, gradient = values_and_gradient(*BATCH[:2])
    _close(values, f"per_token/{released}", plus=_left_out(released))
    _close(gradient, f"per_token_grad/{released}")


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("released", sorted(LOSSES))
def test_loss(released, ratio, signals):
    config = DistillConfig(divergence=LOSSES[released], temperature=FixedTemperature())
    (loss, report), gradient = _loss_and_gradient(config, *BATCH, signals(float(ratio)))
    kept = NUMBERS[f"select/r{ratio}/mask"]
    plus = _left_out(released)[kept].mean()
    _close(loss, f"adakd/{released}/r{ratio}/idts0/loss", plus=plus)
    _close(gradient, f"adakd/{released}/r{ratio}/idts0/grad")
    np.testing.assert_array_equal(report.selected, kept)

    adaptive = config.model_copy(update={"temperature": Idts()})
    (loss, report), _ = _loss_and_gradient(adaptive, *BATCH, signals(float(ratio)))
    tau = np.asarray(report.temperature, np.float64)
    plus = (tau**2 * _left_out(released, tau))[kept].mean()
    _close(loss, f"adakd/{released}/r{ratio}/idts1/loss", plus=plus)
    _close(report.temperature, f"select/r{ratio}/temperature", kept)


# What the released skewed forward KL lacks is no constant where τ moves.
@pytest.mark.parametrize("released", sorted(LOSSES.keys() - {"sfkd"}))
def test_gradient_through_the_temperatures(released, signals):
    """The released code's; ours stops there by default."""
    config = DistillConfig(divergence=LOSSES[released], temperature=Idts(differentiable=True))
    for ratio in RATIOS:
        (_, report), gradient = _loss_and_gradient(config, *BATCH, signals(float(ratio)))
        _close(gradient, f"adakd/{released}/r{ratio}/idts1/grad")
        _close(report.temperature, f"select/r{ratio}/temperature", NUMBERS[f"select/r{ratio}/mask"])
