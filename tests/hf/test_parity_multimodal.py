"""The text model inside a model that sees: its logits on text, and an export of text alone."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.models import logits
from tests.models.family_cases import GEMMA, SIZES
from tests.models.mixer_cases import MIXER_CASES
from tests.models.torch_models import randomised

pytestmark = pytest.mark.parity

_VIT = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
_SIGLIP = dict(_VIT, model_type="siglip_vision_model", image_size=28, patch_size=14)
_PIXTRAL = dict(_VIT, model_type="pixtral", image_size=28, patch_size=14)
_QWEN = dict(depth=1, num_heads=2, hidden_size=16, intermediate_size=16, out_hidden_size=32)
_MROPE = dict(rope_type="default", rope_theta=100.0, mrope_section=[2, 1, 1])
MODELS = {
    "gemma3": dict(
        text_config=dict(GEMMA, query_pre_attn_scalar=24, sliding_window_pattern=2),
        vision_config=_SIGLIP,
        mm_tokens_per_image=4,
        image_token_index=60,
    ),
    "mistral3": dict(
        text_config=dict(SIZES, model_type="mistral", head_dim=12, sliding_window=None),
        vision_config=_PIXTRAL,
        image_token_index=60,
    ),
    "qwen2_5_vl": dict(
        text_config=dict(SIZES, rope_parameters=_MROPE, tie_word_embeddings=False),
        vision_config=dict(_QWEN, fullatt_block_indexes=[0]),
        image_token_id=60,
        video_token_id=59,
        vision_start_token_id=57,
        vision_end_token_id=58,
    ),
    "qwen3_vl": dict(
        text_config=dict(SIZES, head_dim=8, rope_parameters=_MROPE | {"mrope_interleaved": True}),
        vision_config=dict(_QWEN, deepstack_visual_indexes=[0], num_position_embeddings=16),
        image_token_id=60,
        video_token_id=59,
        vision_start_token_id=57,
        vision_end_token_id=58,
    ),
}
MODELS["qwen3_5"] = dict(
    MODELS["qwen3_vl"],
    text_config={key: value for key, value in MIXER_CASES["qwen3_5_text"].items()},
    vision_config=dict(_QWEN, num_position_embeddings=16),
)
MODELS["gemma4"] = dict(
    text_config=MIXER_CASES["gemma4_text"] | {"pad_token_id": 0},
    vision_config=dict(_VIT, num_key_value_heads=2, head_dim=8, position_embedding_size=16),
    audio_config=dict(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        output_proj_dims=16,
        subsampling_conv_channels=[4, 4],
    ),
    image_token_id=60,
    video_token_id=59,
    audio_token_id=58,
)
TEXT_FAMILIES = {
    "gemma3": "gemma3_text",
    "mistral3": "mistral",
    "qwen2_5_vl": "qwen2",
    "qwen3_vl": "qwen3",
    "qwen3_5": "qwen3_5_text",
    "gemma4": "gemma4_text",
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_text_model_is_read_and_exported_as_one_of_its_own(kind, tmp_path):
    config = AutoConfig.for_model(kind, **MODELS[kind])
    model = randomised(AutoModelForImageTextToText.from_config(config), kind)
    model.save_pretrained(tmp_path / "whole")
    with pytest.warns(UserWarning, match="its text model is read, and left out are .*vis"):
        ours = load_pretrained(tmp_path / "whole")
    assert ours.config.family == TEXT_FAMILIES[kind]
    ids = np.random.default_rng(0).integers(3, 50, (1, 14))
    with torch.no_grad():
        wanted = model(input_ids=torch.from_numpy(ids)).logits.numpy()

    @jax.jit
    def apply(params, tokens):
        decoder = nnx.merge(ours.graphdef, params)
        positions = jnp.arange(tokens.shape[1])[None]
        return logits(decoder(tokens, positions, jnp.ones_like(tokens)), decoder.head())

    scores = apply(ours.params, jnp.asarray(ids, jnp.int32))
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-4)

    exported = save_pretrained(ours, tmp_path / "text")
    written = json.loads((exported / "config.json").read_text())
    assert written["model_type"] == TEXT_FAMILIES[kind] and "vision_config" not in written
    text = AutoModelForCausalLM.from_pretrained(exported).eval()
    with torch.no_grad():
        again = text(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(again, wanted, rtol=0, atol=1e-5)
