"""Layers of several kinds: how they are divided into runs, and that each is where it belongs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adakd_jax.models import abstract_decoder
from adakd_jax.models.layer_kinds import Run, layers_with, pick_layers, runs_of
from tests.models.tiny import CONFIGS, decoder_and_params, packed_rows


@pytest.mark.parametrize(
    ("kinds", "runs"),
    [
        ("aaaaa", [Run(0, 1, 5)]),
        ("aaabaaab", [Run(0, 4, 2)]),
        ("aaabaaabaa", [Run(0, 1, 2), Run(2, 4, 2)]),
        ("aabccc", [Run(0, 1, 2), Run(2, 1, 1), Run(3, 1, 3)]),
        ("abababcdcdcd", [Run(0, 2, 3), Run(6, 2, 3)]),
        # A student with any of the layers.
        ("abbab", [Run(0, 1, 1), Run(1, 1, 2), Run(3, 2, 1)]),
    ],
)
def test_as_few_layers_as_possible_are_compiled_in_as_few_runs(kinds, runs):
    assert runs_of(tuple(kinds)) == tuple(runs)


def test_residual_streams_are_in_the_order_of_the_layers():
    """The first four of six layers, in the middle of a period, as a model of their own."""
    config = CONFIGS["delta_nets"]
    graphdef, params = decoder_and_params(config)
    inputs = [jnp.asarray(array, jnp.int32) for array in packed_rows()]
    some = dataclasses.replace(config, num_layers=4, windows=(None,) * 4, mixers=config.mixers[:4])
    assert layers_with(some, "delta") == (0, 1, 3)

    @jax.jit
    def streams(params):
        return nnx.merge(graphdef, params).forward(*inputs, (0, 3, 5))[:2]

    @jax.jit
    def first(params):
        return nnx.merge(abstract_decoder(some)[0], params).forward(*inputs, (0, 3))[:2]

    last, after = streams(params)
    chosen = params | {"layers": pick_layers(config, params["layers"], range(4))}
    _, own = first(chosen)
    np.testing.assert_allclose(after[:, :, :2], own, rtol=0, atol=1e-5)
    normed = nnx.merge(graphdef, params).final_norm(after[:, :, 2])
    np.testing.assert_allclose(normed, last, rtol=0, atol=1e-5)
