"""What is read of a config.json of Gemma 4, and what of its files."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adakd_jax.config.models import StudentLayers
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.student import init_student
from adakd_jax.hf.student_config import select_layers
from adakd_jax.models import FAMILIES, decoder_config
from adakd_jax.models.config import Experts
from adakd_jax.models.layer_sizes import PerLayerInputs
from adakd_jax.models.quantized import Quantization, quantize_params
from adakd_jax.models.rotations import Rope
from adakd_jax.models.size import active_parameter_count, parameter_count
from adakd_jax.planning.flops import attention_operations
from tests.hf.tiny import make_pretrained
from tests.models.mixer_cases import MIXER_CASES
from tests.models.published import PUBLISHED

SMALL = PUBLISHED["Gemma 4 E2B"].hf_config
TINY = MIXER_CASES["gemma4_text"]  # a layer of each kind is read: 1 and 2


def test_small_models_are_read_as_published():
    config = decoder_config(SMALL)
    assert config.mixers[10:20] == (*["attn"] * 4, "wide", *["reader"] * 4, "wide_reader")
    assert (config.head_dim, config.num_kv_heads, config.ffw_dim) == (256, 1, 6144)
    assert config.wide is not None
    assert (config.wide.head_dim, config.wide.num_kv_heads) == (512, 1)
    assert config.wide.rope == Rope(1e6, "proportional", share=0.25)
    assert config.ropes == (Rope(1e4),) and config.windows[3:5] == (512, None)
    assert config.reader_ffw_dim == 12288 and not config.wide.values_are_keys
    assert config.per_layer == PerLayerInputs(256, 262_144)
    assert (config.attention_scale, config.embed_scale) == (1.0, 1536**0.5)


def test_large_models_are_read_as_published():
    config = decoder_config(PUBLISHED["Gemma 4 26B-A4B"].hf_config)
    assert config.mixers == (*["attn"] * 5, "wide") * 5 and config.reader_ffw_dim is None
    assert config.wide is not None and config.wide.values_are_keys
    assert (config.num_kv_heads, config.wide.num_kv_heads) == (8, 2)
    assert config.experts == Experts(128, 8, True, dim=704, beside_dense=True)
    assert config.per_layer is None
    # Of 25.2 and 3.8 billion, says the model's card.
    assert round(parameter_count(config) / 1e9, 1) == 25.2
    assert round(active_parameter_count(config) / 1e9, 1) == 3.8


def test_heads_are_stated_by_kind_or_layer_by_layer():
    stated = TINY | dict(attention_k_eq_v=True, num_global_key_value_heads=1)
    own = {"head_dim": 16, "num_key_value_heads": 1}
    keys = ("global_head_dim", "num_global_key_value_heads")
    by_layer = {key: value for key, value in stated.items() if key not in keys}
    by_layer["per_layer_config"] = {"2": own, "5": own, "8": own}
    assert decoder_config(by_layer) == decoder_config(stated)
    kept = select_layers(by_layer, (1, 2, 8))
    assert kept["per_layer_config"] == {"1": own, "2": own}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(layer_types=["linear_attention"] * 9), r"layer_types \['linear.* valid: full_att"),
        (dict(layer_types=["full_attention"]), "layer_types has 1 entries for 9 layers"),
        (dict(num_kv_shared_layers=7), r"=7 leaves no layer of type full_attention .*valid: fewer"),
        (dict(num_kv_shared_layers=9), "leaves no layer of type full_attention, sliding"),
        (dict(num_kv_shared_layers=-1), "num_kv_shared_layers is -1, valid: a whole number"),
        (dict(use_bidirectional_attention="all"), r"='all' is not supported; valid: null, .vision"),
        (dict(rope_scaling=dict(rope_type="yarn")), "valid: null, and rope_parameters by layer"),
        (
            dict(rope_parameters=dict(rope_type="default", rope_theta=1e4)),
            "rope_parameters has rope_theta, rope_type; valid: a set each for full_attention, sl",
        ),
        (
            dict(
                rope_parameters=dict(
                    full_attention=dict(rope_type="yarn", rope_theta=1e4),
                    sliding_attention=dict(rope_type="default", rope_theta=1e4),
                )
            ),
            "rope_type 'yarn' is not supported for gemma4_text; valid: default, proportional",
        ),
        (dict(enable_moe_block=True), "lacks num_experts, top_k_experts, moe_intermediate_size"),
        (dict(global_head_dim=15), "wide.head_dim is 15, must be even"),
        (dict(per_layer_config={"2": {"num_hidden_layers": 1}}), "per_layer_config.2 .*valid: an"),
        (dict(per_layer_config={"2": {"head_dim": 20}}), "per_layer_config.5 .*the same for all"),
    ],
)
def test_what_does_not_fit_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        decoder_config(TINY | fields)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((0, 2, 4, 8), r"\[4\] read the keys and values of layer 1; keep it too"),
        ((1, 4, 5), r"\[5\] read the keys and values of layer 2; keep it too"),
        ((1, 2, 4), r"the last, 4, has a window, .*valid: one of \[2, 5, 8\]"),
    ],
)
def test_layers_that_cannot_stand_without_others_are_named(layers, message):
    with pytest.raises(ValueError, match=message):
        select_layers(TINY, layers)


def test_a_student_keeps_the_inputs_of_its_layers():
    teacher = make_pretrained(TINY)
    layers = (1, 2, 4, 8)
    student = init_student(StudentLayers(layers=layers), teacher, jax.random.key(0))
    assert student.config.mixers == ("attn", "wide", "reader", "wide_reader")
    assert student.source.hf_config["num_kv_shared_layers"] == 2
    for path in (("embedding",), ("project", "kernel")):
        own, whole = student.params["per_layer"], teacher.params["per_layer"]
        for key in path:
            own, whole = own[key], whole[key]
        by_layer = np.asarray(whole).reshape(-1, 9, 12)[:, list(layers)]
        np.testing.assert_array_equal(own, by_layer.reshape(-1, 48))


def test_published_files_have_tensors_that_nothing_reads(tmp_path):
    """Keys and values of layers that read those of others."""
    model = make_pretrained(TINY)
    folder = save_pretrained(model, tmp_path / "model")
    file = folder / "model.safetensors"
    unread = {
        "model.layers.4.self_attn.k_proj.weight": np.zeros((16, 32), np.float32),
        "model.layers.8.self_attn.v_proj.weight": np.zeros((32, 32), np.float32),
        "model.layers.8.self_attn.k_norm.weight": np.zeros(16, np.float32),
    }
    save_file(load_file(file) | unread, file, {"format": "pt"})
    again = load_pretrained(folder)
    for got, wanted in zip(*map(jax.tree.leaves, (again.params, model.params)), strict=True):
        np.testing.assert_array_equal(got, wanted)
    other = {"model.layers.1.self_attn.v_norm.weight": np.zeros(8, np.float32)}
    save_file(load_file(file) | other, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 extra: model.layers.1.self_attn.v_norm.weight"):
        load_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_experts_are_rounded_as_they_are_read(kind, tmp_path):
    """Each of a tensor of all of them, transposed."""
    model = make_pretrained(MIXER_CASES["gemma4_experts"])
    folder = save_pretrained(model, tmp_path / "model")
    how = Quantization(kind, tile=4)
    again = load_pretrained(folder, quantization=how).params
    for got, wanted in zip(
        *map(jax.tree.leaves, (again, quantize_params(model.params, how))), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


METADATA = {
    "gemma4.attention.sliding_window_pattern": [True, False, True, False],
    "gemma4.attention.shared_kv_layers": 2,
    "gemma4.attention.key_length": 16,
    "gemma4.attention.key_length_swa": 8,
    "gemma4.attention.head_count_kv": [2, 1, 2, 1],
    "gemma4.attention.sliding_window": 7,
    "gemma4.feed_forward_length": [24, 24, 48, 48],
    "gemma4.rope.freq_base": 1e6,
}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("attention.sliding_window_pattern", 2, "pattern is 2; valid: true or false for each of 4"),
        ("feed_forward_length", [24, 48, 48, 48], "valid: 24, or that and twice .* from layer 2"),
        ("attention.head_count_kv", [2, 1, 1, 1], "a number for the layers with a window, and one"),
    ],
)
def test_what_a_file_of_llama_cpp_says_layer_by_layer_has_to_go_by_kind(key, value, message):
    read = FAMILIES["gemma4_text"].gguf.read
    found = read(METADATA, {"num_hidden_layers": 4})
    assert (found["num_key_value_heads"], found["num_global_key_value_heads"]) == (2, 1)
    assert found["use_double_wide_mlp"] and found["intermediate_size"] == 24
    with pytest.raises(ValueError, match=message):
        read(METADATA | {f"gemma4.{key}": value}, {"num_hidden_layers": 4})


def test_the_pairs_that_turn_are_the_first_ones():
    look = FAMILIES["gemma4_text"].gguf.look
    config = {
        "layer_types": ["full_attention"],
        "rope_parameters": {"full_attention": {"rope_theta": 1e6}},
    }
    divisors = np.array([1, 1, 1e30, 1e30, 1e30, 1e30, 1e30, 1e30], np.float32)
    shapes = {"blk.0.attn_k.weight": (16, 32)}
    found = look(config, shapes, divisors)
    assert found["rope_parameters"]["full_attention"]["partial_rotary_factor"] == 0.25
    assert found["attention_k_eq_v"]
    for other in (divisors[::-1], np.full(8, 2.0, np.float32), divisors / 1e20):
        with pytest.raises(ValueError, match="no rotation of the first pairs"):
            look(config, shapes, other)


def test_operations_of_attention_count_the_heads_of_each_layer():
    config = decoder_config(TINY | dict(sliding_window=2))
    seen = 1 + 2 + 2 + 2
    pairs = 6 * 8 * seen + 3 * 16 * (1 + 2 + 3 + 4)
    assert attention_operations(config, 4) == 4 * 4 * pairs
