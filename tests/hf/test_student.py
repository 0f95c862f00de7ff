"""A student starts from layers, a checkpoint or at random, in buffers of its own."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adakd_jax.config.models import LoraConfig, StudentCheckpoint, StudentLayers, StudentRandom
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.student import init_student
from adakd_jax.hf.student_config import select_layers
from adakd_jax.models.families import decoder_config
from adakd_jax.models.layer_kinds import one_layer
from tests.hf.tiny import TINY, TINY_LLAMA, TINY_QWEN3_5, make_pretrained

KEY = jax.random.key(3)
GEMMA3 = TINY | {
    "model_type": "gemma3_text",
    "num_hidden_layers": 6,
    "sliding_window": 8,
    "sliding_window_pattern": 3,
    "rope_local_base_freq": 10000.0,
    "rope_theta": 1e6,
}
QWEN3_5 = TINY_QWEN3_5 | {"num_hidden_layers": 8, "full_attention_interval": 4}
QWEN2 = TINY | {
    "model_type": "qwen2",
    "num_hidden_layers": 4,
    "use_sliding_window": True,
    "sliding_window": 8,
    "max_window_layers": 2,
}


@pytest.fixture(scope="module")
def teacher(tokenizer):
    return make_pretrained(TINY_LLAMA, tokenizer)


def run(model):
    tokens = jnp.arange(10, dtype=jnp.int32)[None] + 40
    positions = jnp.arange(10, dtype=jnp.int32)[None]
    return nnx.merge(model.graphdef, model.params)(tokens, positions, jnp.ones_like(tokens))


def test_chosen_layers_are_the_teachers(teacher):
    student = init_student(StudentLayers(layers=(0, 2)), teacher, KEY)
    assert student.config.num_layers == student.source.hf_config["num_hidden_layers"] == 2
    for path, leaf in jax.tree.leaves_with_path(teacher.params):
        got = student.params
        for key in path:
            got = got[key.key]
        wanted = leaf[np.array([0, 2])] if path[0].key == "layers" else leaf
        np.testing.assert_array_equal(got, wanted)
    assert student.tokenizer is teacher.tokenizer
    assert student.source.name == "layers 0, 2 of tiny"
    assert run(student).shape == (1, 10, 32)


def test_all_layers_are_the_teacher_itself(teacher):
    student = init_student(StudentLayers(layers=(0, 1, 2)), teacher, KEY)
    np.testing.assert_array_equal(run(student), run(teacher))


def test_student_can_be_donated_without_harm_to_the_teacher(teacher):
    before = jax.tree.map(np.array, teacher.params)
    student = init_student(StudentLayers(layers=(0, 1, 2)), teacher, KEY)

    def pointers(params):
        return {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(params)}

    assert not pointers(student.params) & pointers(teacher.params)
    jax.jit(lambda p: jax.tree.map(jnp.zeros_like, p), donate_argnums=0)(student.params)
    for old, leaf in zip(jax.tree.leaves(before), jax.tree.leaves(teacher.params), strict=True):
        np.testing.assert_array_equal(old, leaf)


def test_weights_are_float32_whatever_the_teacher_and_the_computation(teacher):
    half = dataclasses.replace(
        teacher, params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), teacher.params)
    )
    source = StudentLayers(layers=(1,), compute_dtype="bfloat16", remat="full")
    student = init_student(source, half, KEY)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(student.params)} == {"float32"}
    assert (student.config.compute_dtype, student.config.remat) == ("bfloat16", "full")
    assert run(student).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("hf_config", "layers"),
    [
        (GEMMA3, (0, 2, 3, 5)),
        (GEMMA3 | {"layer_types": ["full_attention"] + ["sliding_attention"] * 5}, (0, 1, 5)),
        (QWEN2, (1, 2)),
        (QWEN2, (0, 1)),
        (TINY | {"model_type": "mistral", "sliding_window": 8}, (0, 2)),
        (QWEN3_5, (0, 3, 4, 6)),
        (QWEN3_5, (3, 7)),
    ],
)
def test_attention_kinds_follow_the_chosen_layers(hf_config, layers):
    whole = decoder_config(hf_config)
    kept = decoder_config(select_layers(hf_config, layers))
    assert kept.windows == tuple(whole.windows[layer] for layer in layers)
    if whole.layer_ropes:
        assert kept.layer_ropes == tuple(whole.layer_ropes[layer] for layer in layers)
        assert kept.ropes == whole.ropes
    assert kept.num_layers == len(layers)
    assert kept.mixers == tuple(whole.mixers[layer] for layer in layers if whole.mixers)


@pytest.mark.parametrize("layers", [(0, 3, 4, 6), (3, 7)])
def test_chosen_layers_of_two_kinds_are_the_teachers(tokenizer, layers):
    teacher = make_pretrained(QWEN3_5, tokenizer)
    student = init_student(StudentLayers(layers=layers), teacher, KEY)
    theirs, ours = (
        {
            layer: one_layer(model.config, model.params["layers"], layer, lambda leaf, n: leaf[n])
            for layer in range(model.config.num_layers)
        }
        for model in (teacher, student)
    )
    for place, layer in enumerate(layers):
        assert ("delta" in ours[place]) is (layer not in (3, 7))
        jax.tree.map(np.testing.assert_array_equal, ours[place], theirs[layer])
    assert np.isfinite(run(student)).all()


def test_gpt2_counts_its_layers_under_its_own_name():
    gpt2 = {"model_type": "gpt2", "n_layer": 4, "n_embd": 8, "n_head": 2, "vocab_size": 9}
    selected = select_layers(gpt2 | {"n_positions": 16}, (1, 3))
    assert selected["n_layer"] == 2 and "num_hidden_layers" not in selected


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "empty"),
        ((0, 3, 7), r"names \[3, 7\]; the teacher has layers 0 to 2"),
        ((-1,), r"names \[-1\]"),
        ((2, 0), "must increase"),
        ((1, 1), "must increase"),
    ],
)
def test_impossible_layers_are_named(layers, message):
    with pytest.raises(ValueError, match=message):
        select_layers(TINY_LLAMA, layers)


def test_layers_need_a_teacher():
    with pytest.raises(ValueError, match="needs a teacher"):
        init_student(StudentLayers(layers=(0,)), None, KEY)


def test_random_student_from_a_config(teacher, tmp_path):
    small = TINY_LLAMA | {"num_hidden_layers": 1}
    student = init_student(StudentRandom(config=small), teacher, KEY)
    assert student.config.num_layers == 1 and student.tokenizer is teacher.tokenizer
    assert student.source.licence == "mit"
    (tmp_path / "config.json").write_text(json.dumps(small))
    for path in (tmp_path, tmp_path / "config.json"):
        same = init_student(StudentRandom(config=str(path)), None, KEY)
        assert same.config == student.config and same.tokenizer is None
        for a, b in zip(jax.tree.leaves(same.params), jax.tree.leaves(student.params), strict=True):
            np.testing.assert_array_equal(a, b)
    other = init_student(StudentRandom(config=small), teacher, jax.random.key(4))
    assert not jnp.array_equal(
        other.params["embed"]["embedding"], student.params["embed"]["embedding"]
    )


def test_random_student_needs_room_for_the_tokenizer(teacher, tmp_path):
    with pytest.raises(ValueError, match=r"vocab_size 100.*320 tokens"):
        init_student(StudentRandom(config=TINY_LLAMA | {"vocab_size": 100}), teacher, KEY)
    with pytest.raises(ValueError, match=r"has no config\.json"):
        init_student(StudentRandom(config=str(tmp_path)), teacher, KEY)


def test_checkpoint_student_is_an_exported_student(teacher, tmp_path):
    first = init_student(StudentLayers(layers=(0, 2)), teacher, KEY)
    save_pretrained(first, tmp_path / "first")
    source = StudentCheckpoint(path=str(tmp_path / "first"), remat="dots")
    again = init_student(source, teacher, KEY)
    assert again.config == dataclasses.replace(first.config, remat="dots")
    np.testing.assert_array_equal(run(again), run(first))


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
@pytest.mark.parametrize("kind", ["layers", "checkpoint", "random"])
def test_weights_that_a_checkpoint_has_are_shapes(teacher, tmp_path, kind, lora):
    """All else is that of the whole student; under adapters, the weights that are frozen too."""
    source = {
        "layers": lambda: StudentLayers(layers=(0, 2), lora=lora),
        "checkpoint": lambda: StudentCheckpoint(
            path=str(save_pretrained(teacher, tmp_path / "model")), lora=lora
        ),
        "random": lambda: StudentRandom(config=TINY_LLAMA, lora=lora),
    }[kind]()
    whole = init_student(source, teacher, KEY)
    for held in ("frozen", "none"):
        student = init_student(source, teacher, KEY, held=held)
        assert (student.config, student.graphdef) == (whole.config, whole.graphdef)
        assert student.source == whole.source and student.tokenizer is not None
        for path, leaf in jax.tree.leaves_with_path(whole.params):
            got = student.params
            for key in path:
                got = got[key.key]
            assert (got.shape, got.dtype) == (leaf.shape, leaf.dtype)
            read = held == "frozen" and lora is not None and "adapter" not in str(path)
            assert isinstance(got, jax.Array if read else jax.ShapeDtypeStruct)
            assert not read or np.array_equal(got, leaf)
