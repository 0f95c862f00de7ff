"""How much the neurons of experts do."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adakd_jax.axes import HEAD_AXIS
from adakd_jax.models.config import DecoderConfig, Experts
from adakd_jax.models.experts import ExpertFeedForward, choose, expert_hidden
from adakd_jax.models.experts_mesh import Kernels, on_each_device
from adakd_jax.models.token_order import by_expert


def hidden_squares(
    ffw: ExpertFeedForward, x: Float[Array, "B T D"], segments: Int[Array, "B T"]
) -> Float[Array, "B E F"]:
    """Sums of squares, over the tokens of each row that an expert has, of what goes into its last
    product: how much each of its neurons does. `segments` is 0 for padding.
    """
    weights, chosen = choose(ffw.router(x), ffw.of)
    chosen = jnp.where(segments[:, :, None] > 0, chosen, ffw.of.count)
    run = functools.partial(_squares, ffw.config, ffw.of)
    return on_each_device(run, x, weights.astype(x.dtype), chosen, ffw.experts(x.dtype))


def _squares(
    config: DecoderConfig,
    experts: Experts,
    x: Array,
    weights: Array,
    chosen: Array,
    kernels: Kernels,
    first: Array | int,
) -> Array:
    """The part [B, E, F] of all of them that the experts from `first` on make, and of their neurons
    those that are here; 0 elsewhere.
    """
    rows, length, count = *x.shape[:2], len(kernels.gate)
    order = by_expert(chosen.reshape(-1, chosen.shape[-1]), first, count)
    hidden, _ = expert_hidden(config, experts, x, weights, order, kernels)
    row = order.sorted // (length * chosen.shape[-1])
    place = jnp.where(order.expert < count, row * count + order.expert, rows * count)
    squares = jax.ops.segment_sum(hidden.astype(jnp.float32) ** 2, place, rows * count)
    squares = squares.reshape(rows, count, -1)
    everything = jnp.zeros((rows, experts.count, config.ffw_dim), jnp.float32)
    neuron = 0
    if squares.shape[-1] < config.ffw_dim:  # devices along `tensor` share the neurons
        neuron = jax.lax.axis_index(HEAD_AXIS) * squares.shape[-1]
    return jax.lax.dynamic_update_slice(everything, squares, (0, first, neuron))
