"""Live agreement with the torch models of transformers that have experts, through files."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.models import init_cache, logits
from adakd_jax.training.routers import balance_loss
from tests.models.expert_cases import EXPERT_CASES
from tests.models.tiny import forward
from tests.models.torch_models import torch_model

pytestmark = pytest.mark.parity
LENGTH, WORDS = 20, 61


def ours(model, tokens, segments):
    """Logits of rows of documents."""
    starts = np.diff(segments, axis=1, prepend=0) != 0
    places = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    positions = places - np.maximum.accumulate(np.where(starts, places, 0), axis=1)
    return forward(model.graphdef, model.params, tokens, positions, segments)[1]


def theirs(model, tokens, **options):
    with torch.no_grad():
        return model(torch.from_numpy(np.asarray(tokens)), **options).logits.numpy()


@pytest.fixture(params=[*EXPERT_CASES, "qwen3_next"])
def case(request, tmp_path):
    model = torch_model(request.param)
    model.save_pretrained(tmp_path)
    return model, load_pretrained(tmp_path), tmp_path


def test_logits_and_files_agree_with_torch(case):
    model, loaded, folder = case
    tokens = np.random.default_rng(0).integers(0, WORDS, (2, LENGTH))
    expected = theirs(model, tokens)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(ours(loaded, tokens, tokens >= 0), expected, rtol=0, atol=1e-4)

    # Two documents and padding in a row, against each alone.
    packed = np.array([[1] * 8 + [2] * 9 + [0] * 3, [1] * LENGTH])
    got = ours(loaded, tokens, packed)
    np.testing.assert_allclose(got[0, :8], expected[0, :8], rtol=0, atol=1e-4)
    alone = theirs(model, tokens[:1, 8:17])
    np.testing.assert_allclose(got[0, 8:17], alone[0], rtol=0, atol=1e-4)

    again = save_pretrained(loaded, folder / "again")
    written, original = (
        load_file(path / "model.safetensors") for path in (folder / "again", folder)
    )
    assert written.keys() == original.keys()
    for name, tensor in original.items():
        assert written[name].dtype == tensor.dtype
        np.testing.assert_array_equal(written[name], tensor)
    reloaded = AutoModelForCausalLM.from_pretrained(again, attn_implementation="eager").eval()
    np.testing.assert_array_equal(theirs(reloaded, tokens), expected)


@pytest.mark.parametrize("case", ["qwen3_moe", "mixtral", "olmoe", "gpt_oss"], indirect=True)
def test_greedy_text_agrees_with_torch(case):
    model, loaded, _ = case
    prompt = np.random.default_rng(1).integers(0, WORDS, (2, 7))

    @jax.jit
    def step(params, cache, tokens, positions):
        decoder = nnx.merge(loaded.graphdef, params)
        hidden, cache = decoder.decode(tokens, positions, tokens >= 0, cache)
        return jnp.argmax(logits(hidden[:, -1:], decoder.head()), axis=-1).astype(jnp.int32), cache

    row, cache = jnp.asarray(prompt, jnp.int32), init_cache(loaded.config, 2, 19, jnp.float32)
    places = jnp.broadcast_to(jnp.arange(7), (2, 7))
    token, cache = step(loaded.params, cache, row, places)
    for place in range(7, 19):
        row = jnp.concatenate([row, token], axis=1)
        token, cache = step(loaded.params, cache, token, jnp.full((2, 1), place))
    scores = theirs(model, np.array(row, np.int64))
    np.testing.assert_array_equal(row[:, 7:], scores[:, 6:-1].argmax(-1))


@pytest.mark.parametrize("case", ["qwen3_moe", "mixtral", "olmoe"], indirect=True)
def test_files_of_fused_experts_are_the_same_model(case):
    """As transformers 5 has them in memory."""
    model, loaded, folder = case
    model.save_pretrained(folder / "fused", save_original_format=False)
    fused = load_file(folder / "fused" / "model.safetensors")
    assert "model.layers.1.mlp.experts.gate_up_proj" in fused
    again = load_pretrained(folder / "fused")
    for got, expected in zip(*map(jax.tree.leaves, (again.params, loaded.params)), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("case", ["qwen3_moe", "mixtral", "olmoe", "gpt_oss"], indirect=True)
def test_gradients_agree_with_torch(case):
    """Of every weight: routers, experts, biases and sinks included; written as weights are."""
    model, loaded, folder = case
    rng = np.random.default_rng(2)
    tokens = rng.integers(0, WORDS, (2, LENGTH))
    slopes = rng.normal(size=(2, LENGTH, WORDS)).astype(np.float32)
    model.set_experts_implementation("eager")
    (model(torch.from_numpy(tokens)).logits * torch.from_numpy(slopes)).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad)
    model.save_pretrained(folder / "theirs")

    @jax.jit
    @jax.grad
    def gradients(params):
        decoder = nnx.merge(loaded.graphdef, params)
        inputs = jnp.asarray(tokens, jnp.int32), jnp.broadcast_to(jnp.arange(LENGTH), tokens.shape)
        hidden = decoder(*inputs, jnp.ones_like(inputs[0]))
        return (logits(hidden, decoder.head()) * slopes).sum()

    found = dataclasses.replace(loaded, params=gradients(loaded.params))
    save_pretrained(found, folder / "ours")
    ours, theirs = (load_file(folder / who / "model.safetensors") for who in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        error = 2e-4 * max(np.abs(expected).max(), 1e-2)
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=error, err_msg=name)


def test_the_balance_loss_and_its_gradient_agree_with_torch(tmp_path):
    """Padding left out, of several rows and layers."""
    model = torch_model("olmoe")
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    tokens = np.random.default_rng(0).integers(0, WORDS, (2, LENGTH))
    segments = np.array([[1] * 13 + [0] * (LENGTH - 13), [1] * LENGTH])
    given = dict(attention_mask=torch.from_numpy(segments), output_router_logits=True)
    found = model(torch.from_numpy(tokens), **given)
    found.aux_loss.backward()
    places = jnp.broadcast_to(jnp.arange(LENGTH), tokens.shape)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        decoder = nnx.merge(loaded.graphdef, params)
        inputs = jnp.asarray(tokens, jnp.int32), places, jnp.asarray(segments, jnp.int32)
        return balance_loss(decoder.forward(*inputs, with_routing=True).routing, 3)

    value, gradients = loss(loaded.params)
    np.testing.assert_allclose(value, found.aux_loss.detach().numpy(), rtol=1e-5)
    for layer, block in enumerate(model.model.layers):
        router = gradients["layers"]["ffw"]["router"]["weight"][layer].T
        expected = block.mlp.gate.weight.grad.numpy()
        np.testing.assert_allclose(router, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
