"""A feed-forward of many experts: a router chooses a few of them for each token.

References: Shazeer et al., arXiv 1701.06538; what the families differ in: see `Experts`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from adakd_jax.models.activations import ACTIVATIONS
from adakd_jax.models.config import DecoderConfig, Experts
from adakd_jax.models.experts_mesh import Kernels, on_each_device
from adakd_jax.models.grouped import grouped_product
from adakd_jax.models.quantized import restored
from adakd_jax.models.token_order import TokenOrder, by_expert, gathered, spread

# What of the experts the backward pass keeps where it keeps products.
GROUPED = "grouped_product"


class Routing(NamedTuple):
    """What a router did, in sums over the tokens that are no padding, of one layer or [L, …].

    `chosen` [E] counts how often each expert was chosen, `probability` [E] are its probabilities
    before the choice, `entropy` [] is that of these, in nats; all float32.
    """

    chosen: Array
    probability: Array
    entropy: Array


class Router(nnx.Module):
    """Scores of the experts, x · weight + bias, in float32 whatever the weights' precision."""

    def __init__(
        self, config: DecoderConfig, experts: Experts, *, rngs: nnx.Rngs, dtype: DTypeLike
    ) -> None:
        size = (config.embed_dim, experts.count)
        weight = config.initializer_range * jax.random.normal(rngs.params(), size, dtype)
        # Not called a kernel: it is never rounded, nor cast to a narrower type.
        self.weight = nnx.Param(weight)
        self.bias = nnx.Param(jnp.zeros(size[1:], dtype)) if experts.router_bias else None

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T E"]:
        """For every token."""
        wide = x.astype(jnp.float32)
        scores = jnp.einsum(
            "BTD,DE->BTE", wide, self.weight[...].astype(jnp.float32), precision="highest"
        )
        if self.bias is None:
            return scores
        return scores + self.bias[...].astype(jnp.float32)[None, None]


class Stacked(nnx.Module):
    """A matrix for each expert, kernel [E, in, out], and a bias [E, out] or none."""

    def __init__(
        self,
        size: tuple[int, int, int],
        *,
        bias: bool,
        stddev: float,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ) -> None:
        self.kernel = nnx.Param(stddev * jax.random.normal(rngs.params(), size, dtype))
        self.bias = nnx.Param(jnp.zeros((size[0], size[2]), dtype)) if bias else None


class ExpertKernels(nnx.Module):
    """The matrices of all experts of a layer."""

    def __init__(
        self,
        config: DecoderConfig,
        count: int,
        stddev: float,
        out_stddev: float,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ) -> None:
        def stacked(inward: int, outward: int, stddev: float) -> Stacked:
            size = (count, inward, outward)
            return Stacked(size, bias=config.ffw_bias, stddev=stddev, rngs=rngs, dtype=dtype)

        width = config.ffw_dim
        if config.experts is not None and config.experts.dim is not None:
            width = config.experts.dim
        self.gate = stacked(config.embed_dim, width, stddev)
        self.up = stacked(config.embed_dim, width, stddev)
        self.down = stacked(width, config.embed_dim, out_stddev)

    def __call__(self, dtype: DTypeLike) -> Kernels:
        """As they are multiplied by, in `dtype`, whatever they are stored as."""

        def of(part: Stacked) -> tuple[Array, Array | None]:
            bias = None if part.bias is None else part.bias[...].astype(dtype)
            return restored(part.kernel[...], dtype), bias

        return Kernels(*of(self.gate), *of(self.up), *of(self.down))


class ExpertFeedForward(nnx.Module):
    """Σ over the chosen experts of weight · down(activation(gate(x)) · up(x)).

    Each expert computes its own tokens and no others; padding is no expert's, and 0.
    """

    def __init__(
        self,
        config: DecoderConfig,
        experts: Experts,
        stddev: float,
        out_stddev: float,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ) -> None:
        self.config, self.of = config, experts
        self.router = Router(config, experts, rngs=rngs, dtype=dtype)
        stddevs = (stddev, out_stddev)
        self.experts = ExpertKernels(config, experts.count, *stddevs, rngs=rngs, dtype=dtype)

    def __call__(
        self, x: Float[Array, "B T D"], segments: Int[Array, "B T"]
    ) -> tuple[Float[Array, "B T D"], Routing]:
        """Transform every token; `segments` is 0 for padding.

        Returns:
            in x's dtype; and what the router did.
        """
        return mixed(self.config, self.of, x, self.router(x), self.experts, segments)


def mixed(
    config: DecoderConfig,
    experts: Experts,
    x: Float[Array, "B T D"],
    scores: Float[Array, "B T E"],
    kernels: ExpertKernels,
    segments: Int[Array, "B T"],
    scale: Float[Array, " E"] | None = None,
) -> tuple[Float[Array, "B T D"], Routing]:
    """The weighted sum of what the experts with the highest scores make of each token.

    Args:
        config: of the model.
        experts: of its layers.
        x: their input.
        scores: of the router.
        kernels: of the layer's experts.
        segments: 0 for padding, which no expert has.
        scale: what else multiplies each expert's part, or None.

    Returns:
        in x's dtype; and what the router did.
    """
    weights, chosen = choose(scores, experts)
    if scale is not None:
        weights = weights * scale[chosen]
    # No expert has this number.
    chosen = jnp.where(segments[:, :, None] > 0, chosen, experts.count)
    run = functools.partial(_of_own_experts, config, experts)
    y = on_each_device(run, x, weights.astype(x.dtype), chosen, kernels(x.dtype))
    return y, routing(scores, chosen, segments)


def _of_own_experts(
    config: DecoderConfig,
    experts: Experts,
    x: Array,
    weights: Array,
    chosen: Array,
    kernels: Kernels,
    first: Array | int,
) -> Array:
    """The part of the sum [B, T, D] that the experts from `first` on make, whose kernels these
    are.
    """
    order = by_expert(chosen.reshape(-1, chosen.shape[-1]), first, len(kernels.gate))
    hidden, share = expert_hidden(config, experts, x, weights, order, kernels)
    y = _product(experts, hidden, kernels.down, None, order)
    if kernels.down_bias is not None:
        y = y + share * _of_expert(kernels.down_bias, order)
    return gathered(y, order, x.shape[0] * x.shape[1]).reshape(x.shape)


def expert_hidden(
    config: DecoderConfig,
    experts: Experts,
    x: Array,
    weights: Array,
    order: TokenOrder,
    kernels: Kernels,
) -> tuple[Array, Array]:
    """What goes into the last product, and the weights that it was multiplied by."""
    sorted_rows = spread(x.reshape(-1, x.shape[-1]), order)
    gate = _product(experts, sorted_rows, kernels.gate, kernels.gate_bias, order)
    up = _product(experts, sorted_rows, kernels.up, kernels.up_bias, order)
    # Before the last product: there are fewer numbers to multiply, and its result, the largest
    # of all arrays here, is not needed for the gradient of the weights.
    share = spread(weights.reshape(-1, 1), order)
    return _activated(config, experts, gate, up) * share, share


def _product(
    experts: Experts, rows: Array, kernel: Array, bias: Array | None, order: TokenOrder
) -> Array:
    expected = len(order.expert) * len(kernel) // experts.count
    y = grouped_product(rows, kernel, order.sizes, expected=expected)
    y = checkpoint_name(y, GROUPED)
    return y if bias is None else y + _of_expert(bias, order)


def _activated(config: DecoderConfig, experts: Experts, gate: Array, up: Array) -> Array:
    clamped = experts.clamped
    if clamped is None:
        return ACTIVATIONS[config.activation](gate) * up
    gate = jnp.minimum(gate, clamped.limit)
    up = jnp.clip(up, -clamped.limit, clamped.limit)
    return (up + 1) * (gate * jax.nn.sigmoid(clamped.gain * gate))


def _of_expert(bias: Array, order: TokenOrder) -> Array:
    """The bias of each row's expert; 0 for rows of none."""
    own = bias[jnp.minimum(order.expert, len(bias) - 1)]
    return own * (order.expert < len(bias)).astype(bias.dtype)[:, None]


def choose(
    scores: Float[Array, "B T E"], experts: Experts
) -> tuple[Float[Array, "B T X"], Int[Array, "B T X"]]:
    """Weights and numbers of the X experts with the highest scores.

    The weights are the softmax of the scores: of all of them, or, `renormalised`, of the chosen.
    """
    best, chosen = jax.lax.top_k(scores, experts.active)
    over = best if experts.renormalised else scores
    weights = jnp.exp(best - jax.nn.logsumexp(over, axis=-1, keepdims=True))
    return weights, chosen


def routing(
    scores: Float[Array, "B T E"], chosen: Int[Array, "B T X"], segments: Int[Array, "B T"]
) -> Routing:
    """What the router did; a gradient flows to the probabilities alone."""
    there = (segments > 0).astype(jnp.float32)
    log_probability = jax.nn.log_softmax(scores, axis=-1)
    probability = jnp.exp(log_probability)
    entropy = -jnp.sum(jax.lax.stop_gradient(probability * log_probability), axis=-1)
    numbers = jnp.arange(scores.shape[-1])
    return Routing(
        jnp.sum(chosen[..., None] == numbers[None, None, None], axis=(0, 1, 2), dtype=jnp.float32),
        jnp.sum(probability * there[..., None], axis=(0, 1)),
        jnp.sum(entropy * there),
    )


def no_routing(layers: int, experts: int) -> Routing:
    """Sums of nothing, of all layers."""
    each = (layers, experts)
    return Routing(jnp.zeros(each), jnp.zeros(each), jnp.zeros(layers))
