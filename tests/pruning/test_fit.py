"""The fitted products are the least-squares ones, worked out in NumPy."""

import jax
import numpy as np
import pytest

from adakd_jax.config.models import StudentPruned
from adakd_jax.hf.student import init_student
from adakd_jax.pruning import fit
from adakd_jax.pruning.choice import choose
from adakd_jax.pruning.importance import measure_importance
from adakd_jax.pruning.sizes import asked_sizes
from tests.pruning.test_cut import logits_of
from tests.pruning.tiny import rows, whole


def pruned(model, **sizes):
    importance = measure_importance(model, [rows()])
    source = StudentPruned(**sizes)
    return source, choose(model.config, importance, asked_sizes(source, model.config))


def test_layers_in_several_passes_give_the_same(monkeypatch):
    model = whole("llama")
    _, choice = pruned(model, ffw=0.5, heads=0.5)
    once = fit.fitted_kernels(model, [rows()], choice)
    monkeypatch.setattr(fit, "_BYTES_AT_ONCE", 1)
    again = fit.fitted_kernels(model, [rows()], choice)
    assert set(once) == {"layers.ffw.down.kernel", "layers.attn.out.kernel"}
    jax.tree.map(np.testing.assert_array_equal, once, again)


def test_no_other_kernel_is_nearer_to_what_the_whole_wrote():
    """In the first layer, whose input is the whole model's."""
    model, batch = whole("llama"), rows()
    _, choice = pruned(model, ffw=0.5)
    kernel = fit.fitted_kernels(model, [batch], choice)["layers.ffw.down.kernel"][0]
    hidden, wrote = fit_inputs(model, batch)
    kept, before = choice.neurons[0], np.asarray(model.params["layers"]["ffw"]["down"]["kernel"][0])
    some = hidden[:, kept]
    ridge = fit.RIDGE * (some * some).sum() / len(kept)
    expected = np.linalg.lstsq(
        np.concatenate([some, np.sqrt(ridge) * np.eye(len(kept))]),
        np.concatenate([wrote, np.sqrt(ridge) * before[kept]]),
        rcond=None,
    )[0]
    np.testing.assert_allclose(kernel, expected, rtol=0, atol=1e-4)


def fit_inputs(model, batch):
    """What goes into the first layer's last product, and what comes out, float64 [tokens, …]."""
    from tests.pruning.test_importance import attended_by_hand, norm

    tree = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), model.params)
    params = jax.tree.map(lambda leaf: leaf[0], tree["layers"])
    x, eps = tree["embed"]["embedding"][batch.tokens], model.config.norm_eps
    read = norm(x, params["attn_norm"]["scale"], eps)
    attended = attended_by_hand(read, params, batch, model.config).reshape(*x.shape[:2], -1)
    by_ffw = norm(x + attended @ params["attn"]["out"]["kernel"], params["ffw_norm"]["scale"], eps)
    gate, up = (by_ffw @ params["ffw"][name]["kernel"] for name in ("gate", "up"))
    hidden = (gate / (1 + np.exp(-gate)) * up)[np.asarray(batch.segments) > 0]
    return hidden, hidden @ params["ffw"]["down"]["kernel"]


@pytest.mark.parametrize("sizes", [{"ffw": 0.5}, {"heads": 0.5}], ids=str)
def test_it_brings_a_student_nearer(sizes):
    model = whole("llama")
    source, choice = pruned(model, **sizes)
    fitted = fit.fitted_kernels(model, [rows()], choice)
    plain, better = (
        init_student(source, model, jax.random.key(0), choice=choice, fitted=kernels)
        for kernels in ({}, fitted)
    )
    expected = logits_of(model)
    errors = [np.square(logits_of(student) - expected).mean() for student in (plain, better)]
    assert errors[1] < 0.8 * errors[0], errors
    name = next(iter(fitted)).split(".")[1:]
    stored = better.params["layers"][name[0]][name[1]]["kernel"]
    np.testing.assert_array_equal(stored, next(iter(fitted.values())))


def test_width_takes_the_outputs_that_are_left():
    model = whole("llama")
    source, choice = pruned(model, ffw=0.5, width=0.5)
    fitted = fit.fitted_kernels(model, [rows()], choice)
    student = init_student(source, model, jax.random.key(0), choice=choice, fitted=fitted)
    assert student.params["layers"]["ffw"]["down"]["kernel"].shape == (3, 24, 16)
    assert np.isfinite(logits_of(student)).all()
