"""Live agreement with the torch models of transformers, family by family, through files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file

from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.write import save_weights
from adakd_jax.models import init_cache, logits
from tests.models.family_cases import CASES, ONE_EACH
from tests.models.torch_models import torch_model

pytestmark = pytest.mark.parity
LENGTH = 20


def _positions(tokens):
    return jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)


@functools.partial(jax.jit, static_argnums=0)
def _logits(graphdef, params, tokens):
    decoder = nnx.merge(graphdef, params)
    hidden = decoder(tokens, _positions(tokens), jnp.ones_like(tokens))
    return logits(hidden, decoder.head())


@functools.partial(jax.jit, static_argnums=(0, 3))
def _greedy(graphdef, params, prompt, new_tokens):
    """Prompt and continuation, through the cache."""
    decoder = nnx.merge(graphdef, params)
    batch, length = prompt.shape
    cache = init_cache(decoder.config, batch, length + new_tokens, jnp.float32)

    def best(hidden):
        return jnp.argmax(logits(hidden[:, -1:], decoder.head()), axis=-1).astype(jnp.int32)

    hidden, cache = decoder.decode(prompt, _positions(prompt), prompt >= 0, cache)

    def step(state, _):
        token, cache = state
        hidden, after = decoder.decode(token, cache.index + 0 * token, token >= 0, cache)
        return (best(hidden), after), token[:, 0]

    _, tokens = jax.lax.scan(step, (best(hidden), cache), length=new_tokens)
    return jnp.concatenate([prompt, tokens.T], axis=1)


@pytest.mark.parametrize("case", CASES)
def test_logits_agree_with_torch_and_files_round_trip(case, tmp_path):
    model = torch_model(case)
    model.save_pretrained(tmp_path)
    pretrained = load_pretrained(tmp_path)
    tokens = np.random.default_rng(0).integers(0, 61, (2, LENGTH))
    with torch.no_grad():
        theirs = model(torch.from_numpy(tokens)).logits.numpy()
    ours = _logits(pretrained.graphdef, pretrained.params, jnp.asarray(tokens, jnp.int32))
    assert np.std(theirs) > 0.03
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)

    hf_config = pretrained.source.hf_config
    save_weights(pretrained.config, pretrained.params, hf_config, tmp_path / "again")
    written = load_file(tmp_path / "again" / "model.safetensors")
    original = load_file(tmp_path / "model.safetensors")
    assert written.keys() == original.keys()
    for name, tensor in original.items():
        assert written[name].dtype == tensor.dtype
        np.testing.assert_array_equal(written[name], tensor)


@pytest.mark.parametrize("case", [*ONE_EACH.values(), "qwen2_windows"])
def test_greedy_text_agrees_with_torch(case, tmp_path):
    model = torch_model(case)
    model.save_pretrained(tmp_path)
    pretrained = load_pretrained(tmp_path)
    prompt = np.random.default_rng(1).integers(0, 61, (2, 7))
    ours = _greedy(pretrained.graphdef, pretrained.params, jnp.asarray(prompt, jnp.int32), 12)
    assert ours.shape == (2, 19)
    with torch.no_grad():
        scores = model(torch.from_numpy(np.array(ours, np.int64))).logits
    np.testing.assert_array_equal(ours[:, 7:], scores[:, 6:-1].argmax(-1))
