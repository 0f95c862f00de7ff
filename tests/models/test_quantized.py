"""Kernels in eight and four bits: their bytes, their values, and a model of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adakd_jax.models import abstract_decoder, decoder_config, random_params
from adakd_jax.models.quantized import (
    Quantization,
    quantization_of,
    quantize,
    quantize_params,
    restored,
)
from tests.hf.tiny import TINY_LLAMA

# QLoRA (arXiv 2305.14314), appendix E.
BELOW = (-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004)
ABOVE = (0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0)
NF4 = np.float32([*BELOW, 0.0, *ABOVE])
INT8, FOUR = Quantization("int8"), Quantization("nf4", 8)
KERNEL = np.random.default_rng(0).normal(size=(3, 24, 10)).astype(np.float32)
L, D, F = KERNEL.shape


def test_int8_rounds_each_output_to_steps_of_its_own():
    rounded = quantize(KERNEL, INT8)
    assert rounded.qvalue.dtype == jnp.int8 and rounded.qvalue.shape == KERNEL.shape
    assert rounded.scale.shape == (L, 1, F)
    step = np.abs(KERNEL).max(axis=1, keepdims=True) / 127.5
    np.testing.assert_allclose(rounded.scale, step, rtol=1e-6)
    assert np.all(np.abs(restored(rounded, jnp.float32) - KERNEL) <= 0.5001 * step)


def test_nf4_takes_the_nearest_level_of_each_tile():
    rounded = quantize(KERNEL, FOUR)
    assert rounded.qvalue.dtype == jnp.uint8 and rounded.qvalue.shape == (L, D // 2, F)
    tiles = KERNEL.reshape(L, D // 8, 8, F)
    scale = np.abs(tiles).max(axis=2, keepdims=True)
    nearest = np.abs((tiles / scale)[..., None] - NF4).argmin(axis=-1)
    expected = (NF4[nearest] * scale).reshape(KERNEL.shape)
    np.testing.assert_allclose(restored(rounded, jnp.float32), expected, rtol=1e-5)


def test_a_tile_that_does_not_divide_the_inputs_shrinks_to_one_that_does():
    assert quantize(KERNEL, Quantization("nf4", 64)).scale.shape == (L, D // 8, F)
    with pytest.raises(ValueError, match=r"23 inputs cannot be nf4.*valid: int8"):
        quantize(KERNEL[:, 1:], FOUR)


@pytest.mark.parametrize(("how", "name"), [(INT8, "int8"), (FOUR, "nf4 of 8")])
def test_bytes_of_a_model_are_those_that_were_counted(how, name):
    config = decoder_config(TINY_LLAMA)
    _, shapes = abstract_decoder(config, jnp.bfloat16)
    rounded = jax.eval_shape(lambda params: quantize_params(params, how), shapes)
    kernels = {"query": (32, 32), "key": (32, 16), "value": (32, 16), "out": (32, 32)}
    sizes = [*kernels.values(), (32, 64), (32, 64), (64, 32)]
    layers, numbers = 3, sum(inputs * outputs for inputs, outputs in sizes)
    if how is INT8:
        expected = layers * (numbers + 4 * sum(outputs for _, outputs in sizes))
    else:
        expected = layers * (numbers // 2 + 4 * numbers // 8)
    rest = 2 * (320 * 32 + 32 + layers * 2 * 32)  # embedding and norms, bfloat16
    leaves = jax.tree.leaves(rounded)
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) == expected + rest
    assert quantization_of(quantize_params(random_params(config, jax.random.key(0)), how)) == name
    assert quantization_of(shapes) is None


def test_a_model_of_rounded_kernels_is_the_model_of_restored_ones():
    config = decoder_config(TINY_LLAMA)
    graphdef, _ = abstract_decoder(config)
    params = random_params(config, jax.random.key(0))
    tokens = jnp.arange(12).reshape(1, 12)
    inputs = tokens, tokens, jnp.ones_like(tokens)

    @jax.jit
    def hidden(params):
        return nnx.merge(graphdef, params)(*inputs)

    exact = hidden(params)
    for how, error in ((INT8, 0.05), (FOUR, 0.7)):
        rounded = quantize_params(params, how)
        plain = jax.tree.map(
            lambda leaf: restored(leaf, jnp.float32),
            rounded,
            is_leaf=lambda leaf: hasattr(leaf, "qvalue"),
        )
        got = hidden(rounded)
        np.testing.assert_allclose(got, hidden(plain), atol=1e-5)
        distance = float(jnp.linalg.norm(got - exact) / jnp.linalg.norm(exact))
        assert 1e-4 < distance < error, (how, distance)
