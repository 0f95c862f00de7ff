"""Ahead-of-time compilation for TPU: needs libtpu, but no TPU."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from adakd_jax.models import Rope, abstract_decoder, logits
from adakd_jax.models.layer_sizes import WideHeads
from tests.models.tiny import CONFIGS


@pytest.fixture
def tpu(libtpu):
    """The first device of four that are not there."""
    return topologies.get_topology_desc("v5e:2x2", platform="tpu").devices[0]


WIDE = WideHeads(512, 1, True, Rope(kind="proportional", share=0.25))


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [CONFIGS["windows"], dataclasses.replace(CONFIGS["readers"], head_dim=256, wide=WIDE)]
)
def test_training_with_splash_attention_compiles_for_tpu(config, tpu):
    """Soft caps, segments, local and global layers picked inside the scan, and the gradient; and
    Gemma 4's heads.
    """
    config = dataclasses.replace(
        config,
        attention_implementation="splash",
        compute_dtype="bfloat16",
    )
    graphdef, params = abstract_decoder(config)

    def loss(params, tokens, positions, segments):
        decoder = nnx.merge(graphdef, params)
        hidden = decoder(tokens, positions, segments)
        return jnp.square(logits(hidden, decoder.head())).mean()

    def on_tpu(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=SingleDeviceSharding(tpu))

    row = on_tpu(jax.ShapeDtypeStruct((2, 128), jnp.int32))
    compiled = jax.jit(jax.grad(loss)).lower(jax.tree.map(on_tpu, params), row, row, row).compile()
    text = compiled.as_text()
    assert "tpu_custom_call" in text and "splash" in text
    # The product that makes the scores in XLA's path.
    assert "BKGTH,BKSH->BKGTS" not in text
