"""What dropout costs a TPU that is not there, as its compiler counts: needs libtpu, but no TPU."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from adakd_jax.models.dropout import dropout


def usual(key, rate, x):
    """With 32 bits for each value."""
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


@pytest.mark.slow
def test_dropout_costs_less_than_with_32_bits_a_value(libtpu):
    [device, *_] = topologies.get_topology_desc("v5e:2x2", platform="tpu").devices

    def cycles(drop):
        def product(bits, x, weight):
            return drop(jax.random.wrap_key_data(bits), 0.1, x) @ weight

        shapes = ((2,), jnp.uint32), ((4, 512, 1536), jnp.bfloat16), ((1536, 16), jnp.bfloat16)
        there = SingleDeviceSharding(device)
        operands = [jax.ShapeDtypeStruct(*shape, sharding=there) for shape in shapes]
        program = jax.jit(product).lower(*operands).compile().as_text()
        return sum(map(int, re.findall(r'estimated_cycles":"(\d+)"', program)))

    # In a train step, where more than one product reads x, it is less than half.
    nothing = cycles(lambda key, rate, x: x)
    assert 0 < cycles(dropout) - nothing < 0.8 * (cycles(usual) - nothing)
