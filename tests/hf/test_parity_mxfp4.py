"""A folder of MXFP4 experts is the same model here and in transformers."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Mxfp4Config

from adakd_jax.hf.load import load_pretrained
from tests.hf.mxfp4_folder import packed_folder
from tests.models.tiny import forward

pytestmark = pytest.mark.parity


def test_logits_agree_with_torch(tmp_path):
    packed_folder(tmp_path / "packed")
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path / "packed",
        dtype=torch.float32,
        attn_implementation="eager",
        quantization_config=Mxfp4Config(dequantize=True),
    ).eval()
    ours = load_pretrained(tmp_path / "packed")
    tokens = np.random.default_rng(0).integers(0, 320, (2, 20))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).logits.numpy()
    places = jnp.broadcast_to(jnp.arange(20), tokens.shape)
    got = forward(ours.graphdef, ours.params, tokens, places, np.ones_like(tokens))[1]
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
