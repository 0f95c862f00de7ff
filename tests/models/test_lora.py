"""Adapters in the decoder: what they add, drop, learn and are called."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict

from adakd_jax.models import abstract_decoder, parameter_axes, random_params
from adakd_jax.models.config import PROJECTIONS, Lora
from adakd_jax.models.dropout import dropout
from adakd_jax.models.lora import Adapter, combine, merge_adapters, split_adapters
from tests.models.tiny import CONFIGS, packed_rows

PLAIN = PROJECTIONS[:7]  # of a model with attention alone, without an output gate
ALL = {
    "plain": PLAIN,
    "learned_positions": tuple(name for name in PLAIN if name != "ffw.gate"),
    "experts": tuple(name for name in PLAIN if name.startswith("attn.")),
    "delta_nets": PROJECTIONS,
    "readers": PROJECTIONS,
}
INPUTS = [jnp.asarray(array, jnp.int32) for array in packed_rows()]


def adapted(name, targets=None, dropout=0.25):
    """A tiny configuration with adapters of scale 2."""
    lora = Lora(rank=3, alpha=6.0, dropout=dropout, targets=targets or ALL[name])
    return dataclasses.replace(CONFIGS[name], lora=lora, remat="dots")


@functools.cache
def model(name):
    """Its structure, its frozen weights, and adapters that change something."""
    config = adapted(name)
    base, adapters = split_adapters(random_params(config, jax.random.key(0)))
    noise = np.random.default_rng(0)
    adapters = jax.tree.map(
        lambda leaf: leaf + noise.normal(0, 0.1, leaf.shape).astype(np.float32), adapters
    )
    return config, abstract_decoder(config)[0], base, adapters


@functools.partial(jax.jit, static_argnums=0)
def hidden(graphdef, params, key=None):
    return nnx.merge(graphdef, params)(*INPUTS, dropout_key=key)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "readers")) for name in ALL]
)
def test_new_adapters_change_nothing_and_merged_ones_say_the_same(name):
    config, graphdef, base, adapters = model(name)
    plain = abstract_decoder(dataclasses.replace(config, lora=None))[0]
    untouched = hidden(plain, base)
    new = split_adapters(random_params(config, jax.random.key(0)))[1]
    np.testing.assert_array_equal(hidden(graphdef, combine(base, new)), untouched)
    whole = combine(base, adapters)
    apart, merged = hidden(graphdef, whole), hidden(plain, merge_adapters(whole, config.lora))
    np.testing.assert_allclose(merged, apart, rtol=1e-4, atol=1e-5)
    assert np.abs(apart - untouched).max() > 0.1


def test_kept_inputs_are_scaled_and_each_input_has_its_own_mask():
    width, rate = 62, 0.25  # no multiple of the four bytes of a drawn word
    paths = ("attn.query", "attn.key", "ffw.gate", "ffw.up", "ffw.down")
    lora = Lora(rank=width, alpha=float(width), dropout=rate, targets=paths)

    def drops(path, key):
        adapter = Adapter((width, width), lora, path, rngs=nnx.Rngs(0))
        adapter.a[...], adapter.b[...] = jnp.eye(width), jnp.eye(width)
        return np.asarray(adapter(jnp.ones((100, width)), key))

    first = drops("attn.query", jax.random.key(0))
    assert set(np.unique(first)) == {0.0, np.float32(1 / 0.75)}
    assert abs((first == 0).mean() - 0.25) < 0.02  # 6,200 draws: three standard deviations
    np.testing.assert_array_equal(first, drops("attn.key", jax.random.key(0)))
    gate, up = drops("ffw.gate", jax.random.key(0)), drops("ffw.up", jax.random.key(0))
    np.testing.assert_array_equal(gate, up)
    down, later = drops("ffw.down", jax.random.key(0)), drops("attn.query", jax.random.key(1))
    for other in (gate, down, later):
        # Independent masks of these shares agree in .75² + .25² = .625 of the values.
        assert abs((first == other).mean() - 0.625) < 0.02
    np.testing.assert_array_equal(drops("attn.query", None), np.ones((100, width)))


@pytest.mark.parametrize(("rate", "share"), [(0.1, 26 / 256), (1e-4, 1 / 256), (0.9999, 255 / 256)])
def test_rates_are_rounded_to_bytes_and_means_kept(rate, share):
    got = np.asarray(dropout(jax.random.key(0), rate, jnp.ones((256, 256))))
    assert set(np.unique(got)) == {0.0, np.float32(1 / (1 - share))}
    assert abs((got == 0).mean() - share) < 0.005


def test_a_drawn_word_drops_for_four_tokens_independently():
    x = jnp.ones((64, 10, 16))
    draws = str(jax.make_jaxpr(lambda key: dropout(key, 0.25, x))(jax.random.key(0)))
    assert draws.count("random_bits[") == 1 and "shape=(3, 16)" in draws
    kept = np.asarray(dropout(jax.random.key(0), 0.25, x)) > 0
    for one, other in itertools.combinations(range(10), 2):
        # 1,024 draws: as above, within four standard deviations.
        assert abs((kept[:, one] == kept[:, other]).mean() - 0.625) < 0.065


def test_every_layer_drops_its_own():
    """Layers that are copies of each other and add so little that all see nearly the same x."""
    config = adapted("plain", ("ffw.up",), dropout=0.5)
    params = random_params(config, jax.random.key(1))
    layers = jax.tree.map(lambda leaf: leaf[:1].repeat(3, 0), params["layers"])
    layers["ffw"]["up"]["adapter"]["b"] += 0.3
    layers["ffw"]["down"]["kernel"] *= 1e-3
    layers["attn"]["out"]["kernel"] *= 0

    @jax.jit
    def added(params, key):
        module = nnx.merge(abstract_decoder(config)[0], params)
        after = module.forward(*INPUTS, (0, 1, 2), dropout_key=key).after
        return jnp.diff(after, axis=-2)

    same = added(params | {"layers": layers}, None)
    dropped = added(params | {"layers": layers}, jax.random.key(0))
    largest = np.abs(same).max()
    np.testing.assert_allclose(same[..., 1, :], same[..., 0, :], atol=0.02 * largest)
    assert np.abs(dropped[..., 1, :] - dropped[..., 0, :]).max() > 0.2 * largest


def test_gradients_are_those_of_the_merged_kernels_by_the_chain_rule():
    config, graphdef, base, adapters = model("plain")
    plain = abstract_decoder(dataclasses.replace(config, lora=None))[0]
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, 12, 16)), jnp.float32)

    @jax.jit
    def of_adapters(adapters):
        return jax.grad(lambda a: jnp.sum(weights * hidden(graphdef, combine(base, a))))(adapters)

    @jax.jit
    def of_kernels(merged):
        return jax.grad(lambda m: jnp.sum(weights * hidden(plain, m)))(merged)

    got = flatten_dict(of_adapters(adapters))
    kernels = flatten_dict(of_kernels(merge_adapters(combine(base, adapters), config.lora)))
    flat = flatten_dict(adapters)
    assert len(got) == 2 * len(PLAIN)
    for path in {path[:-1] for path in got}:
        kernel, a, b = kernels[*path[:-1], "kernel"], flat[*path, "a"], flat[*path, "b"]
        for name, wanted in (
            ("a", 2.0 * np.einsum("LDF,LRF->LDR", kernel, b)),
            ("b", 2.0 * np.einsum("LDR,LDF->LRF", a, kernel)),
        ):
            np.testing.assert_allclose(
                got[*path, name], wanted, rtol=1e-3, atol=1e-4, err_msg=".".join((*path, name))
            )


def test_the_base_keeps_its_precision_and_every_adapter_has_axes():
    abstract = abstract_decoder(adapted("plain"), jnp.bfloat16)[1]
    for path, leaf in flatten_dict(abstract, sep=".").items():
        is_adapter = ".adapter." in path
        assert leaf.dtype == (jnp.float32 if is_adapter else jnp.bfloat16)
        axes = parameter_axes(path)
        assert len(axes) == leaf.ndim and ("rank" in axes) == is_adapter
    assert parameter_axes("layers.attn.out.adapter.a") == ("layers", "heads", "rank")
    assert parameter_axes("layers.attn.out.adapter.b") == ("layers", "rank", "embed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(rank=0), "rank is 0, must be ≥ 1"),
        (dict(alpha=0.0), "alpha is 0.0, must be > 0"),
        (dict(dropout=1.0), r"dropout is 1.0, must lie in \[0, 1\)"),
        (dict(targets=("attn.q",)), r"targets are \('attn.q',\), must be some of"),
        (dict(targets=()), r"targets are \(\)"),
    ],
)
def test_impossible_adapters_are_refused(changes, message):
    good = Lora(rank=2, alpha=4.0, dropout=0.0, targets=("attn.query",))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(good, **changes)
