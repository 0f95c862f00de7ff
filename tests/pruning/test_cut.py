"""What is left of a model computes what the whole does with the rest of it silenced."""

import copy

import jax
import numpy as np
import pytest

from adakd_jax.config.models import StudentLayers, StudentPruned
from adakd_jax.hf.student import init_student
from adakd_jax.models.decoder import abstract_decoder
from adakd_jax.models.layer_kinds import layers_with
from adakd_jax.pruning.choice import Choice, choose, read, written
from adakd_jax.pruning.importance import measure_importance
from adakd_jax.pruning.sizes import asked_sizes
from tests.models.tiny import forward
from tests.pruning.tiny import rows, whole

KEY = jax.random.key(0)


@pytest.fixture(scope="module", params=["llama", "olmo2_biased", "qwen3_moe", "qwen3_next"])
def measured(request):
    model = whole(request.param)
    return model, measure_importance(model, [rows()])


def student_of(model, importance, **sizes):
    source = StudentPruned(**sizes)
    choice = choose(model.config, importance, asked_sizes(source, model.config))
    return init_student(source, model, KEY, choice=choice), choice


def logits_of(model, params=None):
    batch = rows()
    params = model.params if params is None else params
    found = forward(model.graphdef, params, batch.tokens, batch.positions, batch.segments)[1]
    return np.asarray(found)[batch.segments > 0]


def silenced(model, choice):
    """The whole model's parameters, in which what is not kept gives nothing on."""
    params = jax.tree.map(np.array, copy.deepcopy(model.params))
    layers = params["layers"]
    attn = layers_with(model.config, "attn")
    for row, layer in enumerate(choice.layers):
        if choice.neurons is not None:
            experts = layers["ffw"].get("experts")
            down = (layers["ffw"] if experts is None else experts)["down"]["kernel"][layer]
            of_each = choice.neurons[row][None] if experts is None else choice.neurons[row]
            for kernel, kept in zip(down[None] if experts is None else down, of_each, strict=True):
                kernel[np.setdiff1d(np.arange(kernel.shape[0]), kept)] = 0
        if choice.groups is not None and layer in attn:
            out = layers["attn"]["out"]["kernel"][attn.index(layer)]
            heads = out.reshape(model.config.num_kv_heads, -1, out.shape[-1])
            kept = choice.groups[[n for n in choice.layers if n in attn].index(layer)]
            heads[np.setdiff1d(np.arange(len(heads)), kept)] = 0
        if choice.experts is not None:
            gone = np.setdiff1d(np.arange(model.config.experts.count), choice.experts[row])
            # No token then chooses them.
            layers["ffw"]["router"]["weight"][layer][:, gone] = 0
            layers["ffw"]["router"]["bias"][layer][gone] = -1e9
    return params


@pytest.mark.parametrize("sizes", [{"ffw": 0.5}, {"heads": 0.5}], ids=str)
def test_widths_inside_a_layer(measured, sizes):
    model, importance = measured
    if model.config.qk_norm == "width" and "heads" in sizes:
        pytest.skip("the norm over all heads is then over fewer numbers")
    student, choice = student_of(model, importance, **sizes)
    expected = logits_of(model, silenced(model, choice))
    np.testing.assert_allclose(logits_of(student), expected, rtol=0, atol=2e-5)
    assert np.abs(expected - logits_of(model)).max() > 1e-2


def test_experts():
    model = whole("gpt_oss")
    importance = measure_importance(model, [rows()])
    student, choice = student_of(model, importance, experts=0.5)
    expected = logits_of(model, silenced(model, choice))
    np.testing.assert_allclose(logits_of(student), expected, rtol=0, atol=2e-5)


def test_every_size_at_once_is_a_model_of_that_size(measured):
    model, importance = measured
    sizes = {"layers": 2, "ffw": 0.5, "heads": 0.5, "width": 0.5}
    if model.config.experts is not None:
        sizes["experts"] = 4
    student, choice = student_of(model, importance, **sizes)
    shapes = jax.tree.map(lambda leaf: leaf.shape, abstract_decoder(student.config)[1])
    assert jax.tree.map(lambda leaf: leaf.shape, student.params) == shapes
    assert np.isfinite(logits_of(student)).all()
    assert student.config.num_layers == 2 and student.config.embed_dim == 16
    again = read(written(choice))
    jax.tree.map(np.testing.assert_array_equal, again[1:], choice[1:])
    assert again.layers == choice.layers
    # Embeddings and norms: the same numbers of all of them.
    kept = model.params["embed"]["embedding"][:, choice.channels]
    np.testing.assert_array_equal(student.params["embed"]["embedding"], kept)


def test_layers_alone_are_those_of_kind_layers(measured):
    model, _ = measured
    pruned = init_student(StudentPruned(layers=2), model, KEY, choice=Choice((0, 2)))
    named = init_student(StudentLayers(layers=(0, 2)), model, KEY)
    assert pruned.config == named.config and pruned.source == named.source
    jax.tree.map(np.testing.assert_array_equal, pruned.params, named.params)
