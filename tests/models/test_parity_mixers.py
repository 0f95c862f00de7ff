"""Agreement with torch of families whose layers are of several kinds, through files."""

import functools
from itertools import starmap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.write import save_weights
from adakd_jax.models import init_cache, logits
from tests.models.mixer_cases import MIXER_CASES
from tests.models.torch_models import torch_model

pytestmark = pytest.mark.parity
VOCABULARY, LENGTH = 61, 150  # more than two chunks of 64


@pytest.fixture(params=MIXER_CASES)
def case(request, tmp_path):
    """A torch model, and the same one of ours, out of its files."""
    model = torch_model(request.param)
    model.save_pretrained(tmp_path / "theirs")
    return model, load_pretrained(tmp_path / "theirs"), tmp_path


@functools.partial(jax.jit, static_argnums=0)
def forward(graphdef, params, tokens, positions, segments):
    decoder = nnx.merge(graphdef, params)
    return logits(decoder(tokens, positions, segments), decoder.head())


def rows(*lengths):
    """Tokens, positions and segments of a row of documents with padding up to `LENGTH`."""
    rng = np.random.default_rng(sum(lengths))
    tokens = rng.integers(0, VOCABULARY, LENGTH)
    positions, segments = np.zeros((2, LENGTH), int)
    start = 0
    for number, length in enumerate(lengths, start=1):
        positions[start : start + length] = range(length)
        segments[start : start + length] = number
        start += length
    return tokens, positions, segments


def test_padded_and_packed_rows_agree_with_torch_document_by_document(case):
    model, ours, _ = case
    layouts = ((LENGTH,), (70, 1, 40, 30), (64, 64), (5, 90))
    tokens, positions, segments = (
        np.stack(each) for each in zip(*starmap(rows, layouts), strict=True)
    )
    got = forward(ours.graphdef, ours.params, *map(jnp.asarray, (tokens, positions, segments)))
    assert np.isfinite(got).all()
    for row, layout in enumerate(layouts):
        start = 0
        for length in layout:
            part = slice(start, start + length)
            with torch.no_grad():
                theirs = model(torch.from_numpy(tokens[row : row + 1, part])).logits[0].numpy()
            assert np.std(theirs) > 0.1
            np.testing.assert_allclose(got[row, part], theirs, rtol=0, atol=1e-4)
            start += length


def test_files_round_trip_bit_exactly_and_load_in_torch(case):
    model, ours, folder = case
    save_weights(ours.config, ours.params, ours.source.hf_config, folder / "ours")
    written = load_file(folder / "ours" / "model.safetensors")
    original = load_file(folder / "theirs" / "model.safetensors")
    assert written.keys() == original.keys()
    for name, tensor in original.items():
        assert written[name].dtype == tensor.dtype
        np.testing.assert_array_equal(written[name], tensor)
    again = AutoModelForCausalLM.from_pretrained(folder / "ours", attn_implementation="eager")
    tokens = torch.from_numpy(rows(LENGTH)[0][None, :40])
    with torch.no_grad():
        np.testing.assert_array_equal(again(tokens).logits, model(tokens).logits)


@functools.partial(jax.jit, static_argnums=(0, 4))
def greedy(graphdef, params, prompt, valid, new_tokens):
    """The continuation of prompts that are padded on the left."""
    decoder = nnx.merge(graphdef, params)
    batch, length = prompt.shape
    cache = init_cache(decoder.config, batch, length + new_tokens, jnp.float32)
    lengths = valid.sum(1, keepdims=True)
    positions = jnp.maximum(jnp.arange(length)[None] - (length - lengths), 0)
    hidden, cache = decoder.decode(prompt, positions, valid, cache)

    def best(hidden):
        return jnp.argmax(logits(hidden[:, -1:], decoder.head()), axis=-1).astype(jnp.int32)

    def step(state, number):
        token, cache = state
        hidden, cache = decoder.decode(token, lengths + number, token >= 0, cache)
        return (best(hidden), cache), token[:, 0]

    _, tokens = jax.lax.scan(step, (best(hidden), cache), jnp.arange(new_tokens))
    return tokens.T


def test_greedy_text_after_padded_prompts_agrees_with_torch(case):
    model, ours, _ = case
    prompts = np.random.default_rng(1).integers(0, VOCABULARY, (2, 9))
    valid = np.arange(9)[None] >= np.array([[0], [4]])
    got = greedy(ours.graphdef, ours.params, jnp.asarray(prompts), jnp.asarray(valid), 12)
    with torch.no_grad():
        for row in range(2):
            prompt = torch.from_numpy(prompts[row : row + 1, valid[row]])
            theirs = model.generate(
                prompt, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
            )
            np.testing.assert_array_equal(got[row], theirs[0, prompt.shape[1] :])
