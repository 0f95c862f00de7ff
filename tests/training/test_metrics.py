"""What a step reports of its tokens."""

import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.axes import TokenBatch
from adakd_jax.config import DistillConfig, OptimizerConfig, UniformScore
from adakd_jax.distill import LossReport
from adakd_jax.training.metrics import step_metrics
from adakd_jax.training.step import make_train_step
from tests.training.conftest import random_batch


def a_report(scores, selected, norms):
    """Of one micro-batch of one row; sums that do not matter are 1."""
    arrays = {
        "scores": jnp.asarray(scores, jnp.float32),
        "response": jnp.ones(np.shape(scores), bool),
        "selected": jnp.asarray(selected, bool),
        "temperature": jnp.ones(np.shape(scores), jnp.float32),
        "hard": jnp.zeros(np.shape(scores), bool),
        "gradient_norms": norms if norms is None else jnp.asarray(norms, jnp.float32),
    }
    sums = {name: jnp.ones(1) for name in LossReport._fields if name not in arrays}
    return LossReport(**sums, **arrays)


def metrics_of(report, config=DistillConfig()):  # noqa: B008
    ids = jnp.ones(report.scores.shape, jnp.int32)
    batch = TokenBatch(ids, ids, ids, ids)
    return step_metrics(config, batch, jnp.float32(1.0), report, jnp.float32(1.0))


def test_gradients_of_hard_and_easy_tokens():
    """Means over a quarter of the eight kept tokens, two each."""
    scores = [[[0.5, 0.9, 0.1, 0.8, 0.2, 0.3, 0.4, 0.6, 9.9, 0.0]]]
    norms = [[[1.0, 7.0, 0.1, 5.0, 0.3, 1.0, 1.0, 1.0, 99.0, 99.0]]]
    selected = [[[True] * 8 + [False] * 2]]
    found = metrics_of(a_report(scores, selected, norms))
    np.testing.assert_allclose(found["gradient_norm_hard"], 6.0)
    np.testing.assert_allclose(found["gradient_norm_easy"], 0.2, rtol=1e-6)
    nothing = metrics_of(a_report(scores, np.zeros((1, 1, 10)), norms))
    assert nothing["gradient_norm_hard"] == nothing["gradient_norm_easy"] == 0.0


@pytest.mark.parametrize("score", [DistillConfig().score, UniformScore()], ids=lambda s: s.kind)
def test_no_gradients_of_tokens_without_difficulty_or_measurement(score):
    report = a_report([[[0.1, 0.2]]], [[[True, True]]], [[[1.0, 2.0]]])
    if score.kind != "uniform":
        report = report._replace(gradient_norms=None)
    assert not any(
        name.startswith("gradient_") for name in metrics_of(report, DistillConfig(score=score))
    )


def test_a_step_measures_them_if_asked(pair):
    parts = pair.parts(DistillConfig(), OptimizerConfig())._replace(token_gradients=True)
    batch = random_batch(0, micro_batches=2)
    _, found = make_train_step(parts)(pair.state(parts), pair.teacher_params, batch)
    assert float(found["gradient_norm_hard"]) > float(found["gradient_norm_easy"]) > 0.0
