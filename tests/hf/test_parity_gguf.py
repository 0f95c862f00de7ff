"""transformers reads the same model from a GGUF file of Qwen3.5."""

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from adakd_jax.hf.load import load_pretrained
from tests.hf.gguf_models import ARCHITECTURES, EXTRA, gguf_tensors, write_gguf
from tests.hf.tiny import make_pretrained
from tests.models.tiny import forward

pytestmark = pytest.mark.parity


def test_logits_are_those_of_transformers(tmp_path, tokenizer_model):
    arch, hf_config = ARCHITECTURES["qwen3_5"]
    tensors = gguf_tensors(make_pretrained(hf_config), tmp_path / "hf", arch)
    extra = {f"qwen35.{key}": value for key, value in EXTRA["qwen3_5"].items()}
    assert arch == gguf.MODEL_ARCH.QWEN35
    path = write_gguf(tmp_path / "model.gguf", arch, tensors, tokenizer_model, **extra)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
    tokens = np.random.default_rng(0).integers(0, 320, (2, 12))
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(tokens)).logits.float().numpy()
    ours = load_pretrained(path)
    positions, segments = np.stack([np.arange(12)] * 2), np.ones((2, 12), int)
    _, got = forward(ours.graphdef, ours.params, tokens, positions, segments)
    np.testing.assert_allclose(got, wanted, rtol=0.0, atol=1e-4)
