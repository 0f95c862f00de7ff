"""Which part of a multimodal folder is the text model, in the spellings of published files."""

from contextlib import contextmanager

import numpy as np
import pytest
from safetensors.numpy import save_file

from adakd_jax.hf.multimodal import TextReader, text_config
from adakd_jax.hf.safetensors_file import open_safetensors
from adakd_jax.models import decoder_config, parameter_count
from adakd_jax.models.config import Rope

QWEN = dict(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    vocab_size=99,
    rope_theta=1e6,
    tie_word_embeddings=True,
    eos_token_id=7,
)


@contextmanager
def reading(folder, names):
    save_file({name: np.arange(4, dtype=np.float32) for name in names}, folder / "m.safetensors")
    with open_safetensors([folder / "m.safetensors"]) as files:
        yield TextReader(files)


@pytest.mark.parametrize(
    ("there", "own"),
    [
        ("language_model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("lm_head.weight", "lm_head.weight"),
    ],
)
def test_text_tensors_have_their_own_names(there, own, tmp_path):
    with reading(tmp_path, [there]) as text:
        assert list(text.shapes) == [own]
        np.testing.assert_array_equal(text.read(own, (slice(1, 3),)), [1.0, 2.0])


def test_the_rest_is_named(tmp_path):
    names = [
        "vision_tower.vision_model.embeddings.patch_embedding.weight",
        "model.visual.blocks.0.attn.qkv.weight",
        "multi_modal_projector.mm_soft_emb_norm.weight",
        "lm_head.weight",
    ]
    with reading(tmp_path, names) as text:
        assert text.left_out == ["multi_modal_projector", "vision_tower", "visual"]
        assert list(text.shapes) == ["lm_head.weight"]


def test_a_config_that_states_only_what_is_not_default():
    """As Gemma 3 4B is published."""
    said = dict(
        hidden_size=2560,
        intermediate_size=10240,
        model_type="gemma3_text",
        num_hidden_layers=34,
        rope_scaling=dict(factor=8.0, rope_type="linear"),
        sliding_window=1024,
    )
    config = decoder_config(text_config(dict(model_type="gemma3", text_config=said)))
    assert parameter_count(config) == pytest.approx(3_880_099_328, rel=1e-3)
    assert config.ropes == (Rope(1e6, "linear", 8.0), Rope(1e4))


@pytest.mark.parametrize("nested", [False, True])
def test_rotation_by_three_axes_is_the_ordinary_one(nested):
    """As Qwen2.5-VL is published: flat, with a rotation by time, height and width."""
    rope = dict(type="mrope", mrope_section=[2, 3, 3])
    fields = QWEN | dict(rope_scaling=rope)
    whole = dict(text_config=fields) if nested else fields
    whole = whole | dict(model_type="qwen2_5_vl", vision_config=dict(depth=1))
    if nested:
        whole["text_config"]["model_type"] = "qwen2_5_vl_text"
    text = text_config(whole)
    assert "vision_config" not in text and text["eos_token_id"] == 7
    assert decoder_config(text) == decoder_config(QWEN | dict(model_type="qwen2"))


def test_a_text_model_stays_as_it_is():
    config = QWEN | dict(model_type="qwen2")
    assert text_config(config) == config
