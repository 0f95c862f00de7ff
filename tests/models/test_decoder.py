import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adakd_jax.axes import Head
from adakd_jax.models import (
    DecoderConfig,
    abstract_decoder,
    init_cache,
    logits,
    parameter_axes,
    parameter_count,
    random_params,
)
from adakd_jax.models.cache import cut_into_layers
from adakd_jax.models.layer_views import layer_views
from tests.models.tiny import CONFIGS, SIZES, decoder_and_params, forward, packed_rows

SMOLLM2 = dict(
    vocab_size=49152,
    embed_dim=576,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    ffw_dim=1536,
    max_positions=8192,
)


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def test_a_packed_row_is_its_documents(config):
    graphdef, params = decoder_and_params(config)
    tokens, positions, segments = packed_rows()
    packed, _ = forward(graphdef, params, tokens, positions, segments)
    assert np.isfinite(packed).all()
    # The same two documents, each at the start of a row of its own.
    rolled = np.stack([tokens[0], np.roll(tokens[0], -5)])
    alone = np.stack([np.arange(12) < 5, np.arange(12) < 4]).astype(int)
    apart, _ = forward(graphdef, params, rolled, np.stack([np.arange(12)] * 2), alone)
    np.testing.assert_allclose(packed[0, :5], apart[0, :5], rtol=0, atol=2e-5)
    np.testing.assert_allclose(packed[0, 5:9], apart[1, :4], rtol=0, atol=2e-5)


def gradients(config, params):
    graphdef, _ = abstract_decoder(config)
    arrays = [jnp.asarray(a, jnp.int32) for a in packed_rows()]

    def loss(params):
        decoder = nnx.merge(graphdef, params)
        return jnp.square(logits(decoder(*arrays), decoder.head())).mean()

    return jax.jit(jax.grad(loss))(params)


@pytest.mark.parametrize(
    ("name", "remats", "tolerance"),
    [
        ("windows", ("none", "full", "dots"), 1e-5),
        pytest.param("delta_nets", ("none", "full"), 1e-4, marks=pytest.mark.slow),
        pytest.param("readers", ("none", "full", "dots"), 1e-4, marks=pytest.mark.slow),
    ],
)
def test_gradients_are_finite_and_rematerialisation_changes_nothing(name, remats, tolerance):
    config = CONFIGS[name]
    _, params = decoder_and_params(config)
    found = [gradients(dataclasses.replace(config, remat=remat), params) for remat in remats]
    for each in found:
        # Constants.
        assert not np.any(each["layers"].pop("scalar", 0))
    for expected, *others in zip(*map(jax.tree.leaves, found), strict=True):
        assert np.isfinite(expected).all() and np.any(expected)
        for got in others:
            np.testing.assert_allclose(
                got, expected, rtol=0, atol=tolerance * np.abs(expected).max()
            )


@pytest.mark.parametrize("by_views", [False, True])
def test_decoding_is_the_full_forward(config, by_views):
    """A left-padded prompt in one call, then token by token, against whole rows."""
    graphdef, params = decoder_and_params(config)
    tokens = jax.random.randint(jax.random.key(1), (2, 9), 0, SIZES["vocab_size"])
    padding = jnp.array([[0], [2]])
    positions = jnp.maximum(jnp.arange(9)[None] - padding, 0)
    valid = jnp.arange(9)[None] >= padding
    expected, _ = forward(graphdef, params, tokens, positions, valid.astype(int))

    @jax.jit
    def step(params, cache, views, *arrays):
        return nnx.merge(graphdef, params).decode(*arrays, cache, views)

    cache, parts, views = init_cache(config, 2, 11, jnp.float32), [], None
    if by_views:
        cache, views = cut_into_layers(cache), layer_views(config, params["layers"])
    for part in (slice(0, 5), *(slice(t, t + 1) for t in range(5, 9))):
        hidden, cache = step(
            params, cache, views, tokens[:, part], positions[:, part], valid[:, part]
        )
        parts.append(hidden)
    got = jnp.concatenate(parts, axis=1)
    np.testing.assert_allclose(got[valid], expected[valid], rtol=0, atol=2e-5)
    assert int(cache.index) == 9
    np.testing.assert_array_equal(cache.valid, np.pad(valid, ((0, 0), (0, 2))))


def test_the_cache_is_updated_in_place():
    """A decoding loop's temporary memory has no room for another copy of the cache."""
    config = CONFIGS["plain"]
    graphdef, params = abstract_decoder(config)
    cache = jax.eval_shape(lambda: init_cache(config, 4, 4096, jnp.float32))

    def loop(params, cache):
        decoder = nnx.merge(graphdef, params)
        token = jnp.zeros((4, 1), jnp.int32)

        def step(_, state):
            hidden, cache = decoder.decode(token + state[0], token, token == 0, state[1])
            return jnp.argmax(hidden[0, 0]).astype(jnp.int32), cache

        return jax.lax.fori_loop(0, 7, step, (jnp.int32(0), cache))

    memory = jax.jit(loop, donate_argnums=1).lower(params, cache).compile().memory_analysis()
    one_layer = cache.stored["attn"][0].size * 4 // config.num_layers
    # Keys and values of one layer at a time are looked at; all of them are three times that.
    assert memory.temp_size_in_bytes < 2.9 * one_layer
    assert memory.alias_size_in_bytes >= 2 * cache.stored["attn"][0].size * 4


def test_compute_dtype_is_not_the_parameters_dtype():
    config = CONFIGS["windows"]
    graphdef, params = decoder_and_params(config)
    rows = packed_rows()
    exact, _ = forward(graphdef, params, *rows)
    graphdef, _ = abstract_decoder(dataclasses.replace(config, compute_dtype="bfloat16"))
    rounded, scores = forward(graphdef, params, *rows)
    assert rounded.dtype == jnp.bfloat16 and scores.dtype == jnp.float32
    error = np.abs(np.asarray(rounded, np.float32) - exact)
    assert 0 < error.max() < 0.1 * np.abs(exact).max()


def test_logits_apply_scale_bias_cap_and_size():
    hidden = jax.random.normal(jax.random.key(0), (2, 3, 5))
    weight = jax.random.normal(jax.random.key(1), (8, 5))
    bias = jnp.arange(8.0)
    got = logits(hidden, Head(weight, 6, bias=bias, scale=0.3, soft_cap=2.0))
    exact = np.asarray(hidden, np.float64) @ np.asarray(weight, np.float64).T + np.arange(8)
    expected = 2 * np.tanh(exact[..., :6] * 0.3 / 2)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_head_is_the_embedding_where_tied_and_its_own_where_not():
    for name, path in (("windows", "embed"), ("plain", "head")):
        graphdef, params = decoder_and_params(CONFIGS[name])
        head = nnx.merge(graphdef, params).head()
        np.testing.assert_array_equal(head.weight, params[path]["embedding"])
        assert (head.size, "head" in params) == (SIZES["vocab_size"], path == "head")
    assert nnx.merge(*decoder_and_params(CONFIGS["windows"])).head().soft_cap == 4.0


def test_abstract_construction_allocates_nothing_and_counts_parameters():
    config = DecoderConfig(family="llama", windows=(None,) * 30, tied=True, **SMOLLM2)
    _, params = abstract_decoder(config, jnp.bfloat16)
    assert {type(leaf) for leaf in jax.tree.leaves(params)} == {jax.ShapeDtypeStruct}
    assert params["layers"]["ffw"]["gate"]["kernel"].shape == (30, 576, 1536)
    assert params["layers"]["ffw"]["gate"]["kernel"].dtype == jnp.bfloat16
    # The number on SmolLM2-135M's model card.
    assert parameter_count(config) == 134_515_008


def test_random_parameters_have_the_documented_scales():
    config = dataclasses.replace(CONFIGS["learned_positions"], embed_dim=64, ffw_dim=256)
    params = random_params(config, jax.random.key(3), jnp.bfloat16)
    ffw = params["layers"]["ffw"]
    assert ffw["up"]["kernel"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.std(np.float32(ffw["up"]["kernel"])), 0.3, rtol=0.03)
    np.testing.assert_allclose(np.std(np.float32(ffw["down"]["kernel"])), 0.3 / 6**0.5, rtol=0.03)
    assert not np.array_equal(ffw["up"]["kernel"][0], ffw["up"]["kernel"][1])
    assert not np.any(ffw["up"]["bias"]) and np.all(params["final_norm"]["scale"] == 1)


def test_every_parameter_has_axes(config):
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_decoder(config)[1]):
        dotted = ".".join(key.key for key in path)
        assert len(parameter_axes(dotted)) == leaf.ndim, dotted
    with pytest.raises(ValueError, match=r"layers\.attn\.query\.kernel"):
        parameter_axes("layers.attn.kernel")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(num_layers=0), "num_layers is 0"),
        (dict(num_kv_heads=3), "no multiple of num_kv_heads 3"),
        (dict(head_dim=7), "head_dim 7 must be even"),
        (dict(windows=(None, 0)), "windows has 2 entries for 3 layers; windows must be None or"),
        (dict(layer_ropes=(0, 0, 1)), r"layer_ropes has 3 entries.*must lie in 0\.\.0"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIGS["plain"], **changes)
