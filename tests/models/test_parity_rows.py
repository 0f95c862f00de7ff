"""Of every family: documents in packed and padded rows are those of torch one by one, gradients
too, and what is written after a step is what torch then says.
"""

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
from adakd_jax.models import logits
from tests.models.family_cases import ONE_EACH
from tests.models.torch_models import torch_model

pytestmark = pytest.mark.parity
LENGTH = 24
# Two fill the first row, one is at the beginning of the second.
DOCUMENTS = ((0, 0, 18), (0, 18, 24), (1, 0, 9))


def rows(documents):
    """Tokens, positions, segments and next tokens (−1: none) of two rows."""
    tokens, positions, segments = (np.zeros((2, LENGTH), np.int32) for _ in range(3))
    targets = np.full((2, LENGTH), -1, np.int32)
    for number, (ids, (row, begin, end)) in enumerate(zip(documents, DOCUMENTS, strict=True), 1):
        tokens[row, begin:end], segments[row, begin:end] = ids, number
        positions[row, begin:end] = np.arange(end - begin)
        targets[row, begin : end - 1] = ids[1:]
    return tuple(map(jnp.asarray, (tokens, positions, segments, targets)))


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradients(graphdef, params, tokens, positions, segments, targets):
    """Mean cross-entropy, the logits of all positions, and the gradients."""

    def loss(params):
        decoder = nnx.merge(graphdef, params)
        scores = logits(decoder(tokens, positions, segments), decoder.head())
        chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), targets[..., None], -1)[..., 0]
        return -jnp.where(targets >= 0, chosen, 0.0).sum() / (targets >= 0).sum(), scores

    (value, scores), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return value, scores, gradients


def in_torch(model, documents):
    """The same of torch, one document after the other."""
    outputs = [model(torch.from_numpy(ids)[None].long()).logits[0] for ids in documents]
    terms = [
        torch.nn.functional.cross_entropy(scores[:-1], torch.from_numpy(ids[1:]).long())
        for scores, ids in zip(outputs, documents, strict=True)
    ]
    weights = [len(ids) - 1 for ids in documents]
    loss = sum(w * term for w, term in zip(weights, terms, strict=True)) / sum(weights)
    loss.backward()
    return loss.item(), [scores.detach().numpy() for scores in outputs]


@pytest.mark.parametrize("case", [*ONE_EACH.values(), "gemma4_keys_are_values", "gemma4_experts"])
def test_rows_and_gradients_are_those_of_documents_one_by_one(case, tmp_path):
    model = torch_model(case)
    model.save_pretrained(tmp_path)
    ours = load_pretrained(tmp_path)
    noise = np.random.default_rng(3)
    documents = [noise.integers(3, 61, end - begin) for _, begin, end in DOCUMENTS]
    inputs = rows(documents)
    value, scores, gradients = loss_and_gradients(ours.graphdef, ours.params, *inputs)
    wanted_loss, wanted = in_torch(model, documents)
    np.testing.assert_allclose(value, wanted_loss, atol=1e-5)
    for expected, (row, begin, end) in zip(wanted, DOCUMENTS, strict=True):
        np.testing.assert_allclose(scores[row, begin:end], expected, rtol=0, atol=1e-4)
    assert np.isfinite(scores).all()

    hf_config = ours.source.hf_config
    save_weights(ours.config, gradients, hf_config, tmp_path / "gradients")
    written = load_file(tmp_path / "gradients" / "model.safetensors")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad)
        # Constants have no gradient.
        for buffer in model.buffers():
            buffer.zero_()
    model.save_pretrained(tmp_path / "theirs")
    theirs = load_file(tmp_path / "theirs" / "model.safetensors")
    assert written.keys() == theirs.keys()
    for name, gradient in theirs.items():
        scale = max(float(np.abs(gradient).max()), 1e-3)
        np.testing.assert_allclose(
            written[name] / scale, gradient / scale, rtol=0, atol=2e-4, err_msg=name
        )

    stepped = jax.tree.map(lambda p, g: p - 1e-3 * g, ours.params, gradients)
    after, *_ = loss_and_gradients(ours.graphdef, stepped, *inputs)
    assert float(after) < float(value)
