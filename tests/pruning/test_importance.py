"""What is measured of a model, against the same numbers worked out without taps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adakd_jax.axes import TokenBatch
from adakd_jax.models.experts import ExpertFeedForward, choose
from adakd_jax.models.layer_kinds import one_layer
from adakd_jax.pruning.choice import largest
from adakd_jax.pruning.expert_neurons import hidden_squares
from adakd_jax.pruning.importance import measure_importance
from tests.pruning.tiny import rows, whole


@pytest.fixture(scope="module")
def llama():
    return whole("llama")


def norm(x, scale, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * scale


def over_rows(x, there):
    """Minitron's: the norm over rows at each place, the mean over places."""
    return np.sqrt((np.where(there[..., None], x, 0) ** 2).sum(0)).mean(0)


def attended_by_hand(read, params, batch, config):
    """What each head attends to, [B, T, N, H], position by position."""
    size, rope = config.head_dim, config.ropes[0]
    angles = np.asarray(batch.positions)[..., None] * rope.theta ** (-np.arange(0, size, 2) / size)
    cos, sin = np.cos(angles)[:, :, None], np.sin(angles)[:, :, None]

    def heads(name, turned):
        x = read @ params["attn"][name]["kernel"]
        x = x.reshape(*x.shape[:2], -1, size)
        if not turned:
            return x
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

    query, key, value = heads("query", True), heads("key", True), heads("value", False)
    group = config.num_heads // config.num_kv_heads
    key, value = (np.repeat(each, group, axis=2) for each in (key, value))
    scores = np.einsum("BTNH,BSNH->BNTS", query, key) * config.attention_scale
    segments, places = np.asarray(batch.segments), np.arange(read.shape[1])
    seen = (segments[:, :, None] == segments[:, None]) & (places[:, None] >= places)
    weights = np.exp(np.where(seen[:, None], scores, -np.inf))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("BNTS,BSNH->BTNH", weights, value)


def test_all_parts_of_llama_against_numpy(llama):
    batch, config, eps = rows(), llama.config, llama.config.norm_eps
    there = np.asarray(batch.segments) > 0
    found = measure_importance(llama, [batch])
    whole_tree = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), llama.params)
    x, channels = whole_tree["embed"]["embedding"][batch.tokens], 0
    for layer in range(config.num_layers):
        params = one_layer(config, whole_tree["layers"], layer, lambda leaf, row: leaf[row])
        read = norm(x, params["attn_norm"]["scale"], eps)
        attended = attended_by_hand(read, params, batch, config)
        out = attended.reshape(*x.shape[:2], -1) @ params["attn"]["out"]["kernel"]
        by_ffw = norm(x + out, params["ffw_norm"]["scale"], eps)
        gate, up = (by_ffw @ params["ffw"][name]["kernel"] for name in ("gate", "up"))
        hidden = gate / (1 + np.exp(-gate)) * up
        after = x + out + hidden @ params["ffw"]["down"]["kernel"]

        groups = attended.reshape(*x.shape[:2], config.num_kv_heads, -1)
        squares = np.where(there[..., None, None], groups, 0) ** 2
        lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(after, axis=-1)
        influence = 1 - ((x * after).sum(-1) / lengths)[there].mean()
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
        close(found.neurons[layer], over_rows(hidden, there))
        close(found.groups[layer], np.sqrt(squares.sum((0, 3))).mean(0))
        close(found.influence[layer], influence)
        channels = channels + over_rows(read, there) + over_rows(by_ffw, there)
        x = after
    close(found.channels, channels)
    assert found.tokens == there.sum()


def test_neurons_of_experts_are_what_goes_into_their_last_product():
    """Written out for every token and each of its experts."""
    model, batch = whole("qwen3_moe"), rows()
    config, there = model.config, np.asarray(batch.segments) > 0
    found = measure_importance(model, [batch])
    np.testing.assert_allclose(found.experts.sum(-1), 1.0, atol=1e-5)
    ffw = ExpertFeedForward(config, config.experts, 0.3, 0.3, rngs=nnx.Rngs(0), dtype=jnp.float32)
    x = np.random.default_rng(1).normal(size=(3, 10, config.embed_dim)).astype(np.float32)
    got = hidden_squares(ffw, jnp.asarray(x), jnp.asarray(there.astype(np.int32)))
    weights, chosen = choose(ffw.router(jnp.asarray(x)), config.experts)
    kernels = {name: np.asarray(getattr(ffw.experts, name).kernel[...]) for name in ("gate", "up")}
    expected = np.zeros(got.shape)
    for row, place in np.argwhere(there):
        for weight, expert in zip(weights[row, place], chosen[row, place], strict=True):
            gate, up = (x[row, place] @ kernels[name][expert] for name in ("gate", "up"))
            expected[row, expert] += (gate / (1 + np.exp(-gate)) * up * float(weight)) ** 2
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-7)


def test_padding_and_the_order_of_rows_change_nothing(llama):
    batch = rows()
    found = measure_importance(llama, [batch])
    turned = TokenBatch(*(np.asarray(each)[::-1] for each in batch[:4]))
    other = dict(tokens=np.where(batch.segments > 0, batch.tokens, 7))
    padded = TokenBatch(*(np.pad(each, ((0, 2), (0, 0))) for each in batch._replace(**other)[:4]))
    for same in (turned, padded):
        again = measure_importance(llama, [same])
        for name in ("influence", "neurons", "groups", "channels"):
            np.testing.assert_allclose(
                getattr(again, name), getattr(found, name), rtol=1e-4, atol=1e-6
            )


def test_of_equal_scores_the_first_are_kept():
    scores = np.array([[1.0, 3.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(largest(scores, 2), [[0, 1], [0, 1]])


def test_rows_without_a_token_are_refused(llama):
    batch = rows()
    empty = batch._replace(segments=np.zeros_like(batch.segments))
    with pytest.raises(ValueError, match=r"no calibration row has a token"):
        measure_importance(llama, [empty])
