"""Numbers of the authors' released loss functions on fixed logits.

Gradients at adaptive temperatures are left out: the released code lets them through τ.
"""

from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from adakd_jax.config import (
    DistillConfig,
    FixedTemperature,
    ForwardKl,
    Idts,
    ReverseKl,
)
from adakd_jax.distill import distillation_loss, divergence, token_scores

NUMBERS = np.load(Path(__file__).parents[1] / "data" / "adakd_small.npz")
BATCH = tuple(NUMBERS[key] for key in ("student_logits", "teacher_logits", "labels"))
RESPONSE = BATCH[2] != -100
LOSSES = {"fkd": ForwardKl(), "rkd": ReverseKl()}
SCORES = {"hellinger": "hellinger"}
RATIOS = ("1.0", "0.5", "0.1")


def _close(actual, key, where=True):
    expected = np.where(where, NUMBERS[key], 0.0)
    actual = np.where(where, actual, 0.0)
    np.testing.assert_allclose(actual, expected, 1e-5, 1e-5 * np.abs(expected).max())


@partial(jax.jit, static_argnums=0)
def _loss_and_gradient(config, student, teacher, labels, signals):
    run = partial(distillation_loss, config)
    return jax.value_and_grad(run, has_aux=True)(student, teacher, labels, signals)


@pytest.mark.parametrize("released", sorted(SCORES))
def test_scores(released):
    scores = jax.jit(partial(token_scores, SCORES[released]))(*BATCH)
    _close(scores, f"scores/{released}", RESPONSE)


@pytest.mark.parametrize("released", sorted(LOSSES))
def test_divergence_of_each_token(released):
    name = LOSSES[released].kind

    @jax.jit
    def values_and_gradient(student, teacher):
        values, pull_back = jax.vjp(lambda z: divergence(name, z, teacher), student)
        return values, pull_back(RESPONSE.astype(np.float32))[0]

    values, gradient = values_and_gradient(*BATCH[:2])
    _close(values, f"per_token/{released}")
    _close(gradient, f"per_token_grad/{released}")


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("released", sorted(LOSSES))
def test_loss(released, ratio, signals):
    config = DistillConfig(divergence=LOSSES[released], temperature=FixedTemperature())
    (loss, report), gradient = _loss_and_gradient(config, *BATCH, signals(float(ratio)))
    _close(loss, f"adakd/{released}/r{ratio}/idts0/loss")
    _close(gradient, f"adakd/{released}/r{ratio}/idts0/grad")
    np.testing.assert_array_equal(report.selected, NUMBERS[f"select/r{ratio}/mask"])

    adaptive = config.model_copy(update={"temperature": Idts()})
    (loss, report), _ = _loss_and_gradient(adaptive, *BATCH, signals(float(ratio)))
    _close(loss, f"adakd/{released}/r{ratio}/idts1/loss")
    _close(report.temperature, f"select/r{ratio}/temperature", NUMBERS[f"select/r{ratio}/mask"])
