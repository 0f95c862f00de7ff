"""Layers are left out in the order of what the model loses, as a search by hand finds it."""

import jax
import numpy as np
import pytest

from adakd_jax.axes import IGNORE
from adakd_jax.config.models import StudentLayers
from adakd_jax.hf.student import init_student
from adakd_jax.pruning.removal import greedy_removal
from tests.models.tiny import forward
from tests.pruning.tiny import rows, whole


def distance(model, layers, batch):
    """KL of the whole model to some of its layers, in float64."""
    student = init_student(StudentLayers(layers=layers), model, jax.random.key(0))

    def log_probs(model):
        found = forward(model.graphdef, model.params, batch.tokens, batch.positions, batch.segments)
        scores = np.asarray(found[1], np.float64)[batch.labels != IGNORE]
        return scores - np.log(np.exp(scores).sum(-1, keepdims=True))

    teacher, student = log_probs(model), log_probs(student)
    return (np.exp(teacher) * (teacher - student)).sum(-1).mean()


@pytest.mark.parametrize("case", ["olmo2_biased", "qwen3_next"])
def test_each_time_the_one_that_is_missed_least(case):
    model, batch = whole(case), rows()
    removed = greedy_removal(model, [batch, batch], 2)
    left = set(range(model.config.num_layers))
    for layer, forward_kl in removed:
        tried = {n: distance(model, tuple(sorted(left - {n})), batch) for n in left}
        assert layer == min(tried, key=tried.get)
        assert forward_kl == pytest.approx(tried[layer], rel=1e-3)
        left.remove(layer)
    assert len(removed) == 2


def test_a_model_is_not_left_without_layers():
    model = whole("llama")
    with pytest.raises(ValueError, match=r"3 of 3 layers are to be left out; valid: 0 to 2"):
        greedy_removal(model, [rows()], 3)
    silent = rows()._replace(labels=np.full((3, 10), IGNORE, np.int32))
    with pytest.raises(ValueError, match=r"no calibration row has a response token"):
        greedy_removal(model, [silent], 1)
