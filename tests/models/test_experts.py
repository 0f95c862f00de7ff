"""Experts: the grouped product and the router against NumPy, and who is routed where."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adakd_jax.models.config import ClampedSwiglu, DecoderConfig, Experts
from adakd_jax.models.experts import ExpertFeedForward, choose
from adakd_jax.models.grouped import block_rows, grouped_product
from adakd_jax.models.shared_expert import SharedExpert
from tests.models.tiny import CONFIGS, SIZES, decoder_and_params, packed_rows

D, F = 6, 10
RNG = np.random.default_rng(0)
# Groups of no row, of one, of more than a block; and rows that are in none.
GROUPS = np.array([0, 9, 1, 0, 23, 4], np.int32)
ROWS = int(GROUPS.sum()) + 3
X, W, DY = (RNG.normal(size=size) for size in ((ROWS, D), (len(GROUPS), D, F), (ROWS, F)))


def in_groups(run):
    """`run(group, its rows)` for each group."""
    ends = np.cumsum(GROUPS)
    for group, end in enumerate(ends):
        run(group, slice(end - GROUPS[group], end))


@pytest.mark.parametrize("expected", [None, 6 * 16])
def test_the_grouped_product_and_its_gradients(expected):
    y, dx, dw = np.zeros((ROWS, F)), np.zeros_like(X), np.zeros_like(W)

    def one(group, rows):
        y[rows], dx[rows] = X[rows] @ W[group], DY[rows] @ W[group].T
        dw[group] = X[rows].T @ DY[rows]

    in_groups(one)

    @jax.jit
    def both(x, w, dy):
        found, back = jax.vjp(
            lambda x, w: grouped_product(x, w, jnp.asarray(GROUPS), expected=expected), x, w
        )
        return found, *back(dy)

    got = both(*(jnp.asarray(each, jnp.float32) for each in (X, W, DY)))
    for found, wanted in zip(got, (y, dx, dw), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)


def test_a_frozen_kernel_has_no_gradient_computed():
    """Neither the products of one nor the memory."""
    x, w = (jnp.asarray(each, jnp.float32) for each in (X, W))

    def loss(x, w):
        return grouped_product(x, w, jnp.asarray(GROUPS)).sum()

    both, alone = (
        str(jax.make_jaxpr(jax.grad(loss, wanted))(x, w)).count("ragged_dot_general[")
        for wanted in ((0, 1), 0)
    )
    assert (both, alone) == (3, 2)


def test_blocks_waste_little_and_are_large_enough():
    averages = (1 / 16, 1.0, 4.0, 64.0, 512.0, 2.0**16)
    assert [block_rows(average) for average in averages] == [1, 1, 4, 16, 64, 256]


def oracle(layer, x, there, of):
    """Every token through its experts, one by one, in float64."""
    get = lambda leaf: np.asarray(leaf[...], np.float64)  # noqa: E731
    gate, up, down = (layer.experts.gate, layer.experts.up, layer.experts.down)
    y = np.zeros(x.shape)
    for place in np.argwhere(there):
        token = x[tuple(place)].astype(np.float64)
        scores = token @ get(layer.router.weight)
        scores += 0 if layer.router.bias is None else get(layer.router.bias)
        chosen = np.argsort(-scores)[: of.active]
        over = scores[chosen] if of.renormalised else scores
        for expert in chosen:
            weight = np.exp(scores[expert]) / np.exp(over).sum()
            g, u = (
                token @ get(part.kernel)[expert]
                + (0 if part.bias is None else get(part.bias)[expert])
                for part in (gate, up)
            )
            if of.clamped is None:
                hidden = g / (1 + np.exp(-g)) * u
            else:
                limit = of.clamped.limit
                g, u = np.minimum(g, limit), np.clip(u, -limit, limit)
                hidden = (u + 1) * g / (1 + np.exp(-of.clamped.gain * g))
            out = hidden @ get(down.kernel)[expert]
            y[tuple(place)] += weight * (out + (0 if down.bias is None else get(down.bias)[expert]))
    return y


@pytest.mark.parametrize(
    "of",
    [
        Experts(5, 2, renormalised=False),
        Experts(5, 3, True, router_bias=True, clamped=ClampedSwiglu(1.7, 0.5)),
    ],
)
def test_a_layer_is_the_sum_of_its_chosen_experts(of):
    config = DecoderConfig(
        family="qwen3_moe",
        windows=(None,) * 3,
        experts=of,
        ffw_bias=of.router_bias,
        **SIZES,
    )
    layer = ExpertFeedForward(config, of, 0.5, 0.5, rngs=nnx.Rngs(0), dtype=jnp.float32)
    graphdef, params = nnx.split(layer)
    # Biases start at 0.
    noise = jax.random.key(1)
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(noise, x.shape), params)
    layer = nnx.merge(graphdef, params)
    segments = packed_rows()[2]
    x = jax.random.normal(jax.random.key(2), (*segments.shape, SIZES["embed_dim"]))
    y, routing = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x, jnp.asarray(segments)))(
        params, x
    )
    expected = oracle(layer, np.asarray(x), segments > 0, of)
    np.testing.assert_allclose(y, expected, rtol=2e-6, atol=1e-5)
    np.testing.assert_array_equal(y[segments == 0], 0.0)
    assert routing.chosen.sum() == of.active * (segments > 0).sum()


def test_a_shared_expert_is_as_much_of_a_feed_forward_as_its_gate_says():
    of = Experts(4, 2, True, shared_dim=5)
    config = dataclasses.replace(CONFIGS["plain"], experts=of, initializer_range=1.0)
    expert = SharedExpert(config, rngs=nnx.Rngs(3), dtype=jnp.float32)
    assert expert.gate.kernel.shape == (config.embed_dim, 5)
    x = np.random.default_rng(0).normal(size=(2, 3, config.embed_dim))
    gate, up, down, share = (
        np.asarray(each[...], np.float64)
        for each in (expert.gate.kernel, expert.up.kernel, expert.down.kernel, expert.share)
    )
    silu = x @ gate / (1 + np.exp(-x @ gate))
    expected = (silu * (x @ up)) @ down / (1 + np.exp(-x @ share))
    got = expert(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert np.std(expected) > 1


def test_weights_are_those_of_all_scores_or_of_the_chosen():
    scores = jnp.log(jnp.array([[[0.1, 0.4, 0.2, 0.3]]]))
    weights, chosen = choose(scores, Experts(4, 2, renormalised=False))
    np.testing.assert_array_equal(chosen, [[[1, 3]]])
    np.testing.assert_allclose(weights, [[[0.4, 0.3]]], rtol=1e-6)
    weights, _ = choose(scores, Experts(4, 2, renormalised=True))
    np.testing.assert_allclose(weights, [[[4 / 7, 3 / 7]]], rtol=1e-6)


def test_what_the_routers_did_leaves_padding_out():
    """Sums over the tokens of documents, whatever is in the padding."""
    config = CONFIGS["experts"]
    graphdef, params = decoder_and_params(config)
    tokens, positions, segments = (jnp.asarray(each, jnp.int32) for each in packed_rows())

    @jax.jit
    def run(params, tokens):
        decoder = nnx.merge(graphdef, params)
        found = decoder.forward(tokens, positions, segments, with_routing=True)
        return found.routing

    routing = run(params, tokens)
    real = int((segments > 0).sum())
    np.testing.assert_array_equal(routing.chosen.sum(axis=1), [config.experts.active * real] * 3)
    np.testing.assert_allclose(routing.probability.sum(axis=1), [real] * 3, rtol=1e-6)
    assert np.all(routing.entropy <= real * np.log(config.experts.count))
    other = run(params, jnp.where(segments > 0, tokens, 7))
    for one, two in zip(routing, other, strict=True):
        np.testing.assert_array_equal(one, two)


def test_more_active_experts_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"9 active ones of 8; valid: 1 to 8"):
        dataclasses.replace(CONFIGS["experts"].experts, active=9)
