"""The product of a projection: its gradients, and what is computed for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.models.projection import project


def operands(inputs, outputs):
    x, kernel, direction = (
        jax.random.normal(key, shape)
        for key, shape in zip(
            jax.random.split(jax.random.key(0), 3),
            ((2, 5, inputs), (inputs, outputs), (2, 5, outputs)),
            strict=True,
        )
    )
    return x, kernel, direction


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 12), (12, 4), (6, 6)])
def test_gradients_are_those_of_the_product(inputs, outputs):
    x, kernel, direction = operands(inputs, outputs)

    def gradients(product):
        return jax.grad(lambda x, w: (product(x, w) * direction).sum(), argnums=(0, 1))(x, kernel)

    for ours, plain in zip(gradients(project), gradients(jnp.matmul), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("remat", [False, True])
def test_a_kernel_or_an_input_that_is_constant_costs_nothing(remat):
    x, kernel, direction = operands(4, 12)
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    product = jax.checkpoint(project, policy=policy) if remat else project

    def products(argnums):
        def loss(x, kernel):
            return (product(x, kernel) * direction).sum()

        return str(jax.make_jaxpr(jax.grad(loss, argnums=argnums))(x, kernel)).count("dot_general[")

    # The product itself, kept by the policy, and one for each gradient.
    assert (products((0, 1)), products(0), products(1)) == (3, 2, 2)


def test_of_two_factors_the_narrower_is_transposed():
    def first(inputs, outputs):
        x, kernel, direction = operands(inputs, outputs)
        traced = jax.make_jaxpr(jax.grad(lambda w: (project(x, w) * direction).sum()))(kernel)
        last = [one for one in traced.jaxpr.eqns if one.primitive.name == "dot_general"][-1]
        return last.invars[0].aval.shape[-1]

    assert first(4, 12) == first(12, 4) == 4
