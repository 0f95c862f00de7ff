"""Inputs that each layer has of its own, beside the residual stream (Gemma 3n and 4)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from adakd_jax.axes import rows_of
from adakd_jax.models.activations import ACTIVATIONS
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.linear import Linear
from adakd_jax.models.lora import adapter_of
from adakd_jax.models.norm import Norm


class PerLayerTable(nnx.Module):
    """(norm(embedding · project / √D) + √P · table[token]) / √2, for each of L layers P numbers.

    Table [V, L·P] and kernel [D, L·P] have the numbers of one layer after those of another.
    """

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        assert config.per_layer is not None
        self.layers, self.dim = config.num_layers, config.per_layer.dim
        width, stddev = self.layers * self.dim, config.initializer_range
        rows = config.per_layer.vocab_size
        self.embedding = nnx.Param(stddev * jax.random.normal(rngs.params(), (rows, width), dtype))
        size = (config.embed_dim, width)
        self.project = Linear(size, bias=False, stddev=stddev, rngs=rngs, dtype=dtype)
        self.norm = Norm(config, self.dim, dtype)

    def __call__(
        self, tokens: Int[Array, "B T"], embedded: Float[Array, "B T D"]
    ) -> Float[Array, "L B T P"]:
        """The inputs of all layers.

        Args:
            tokens: token ids.
            embedded: the residual stream before the first layer.
        """

        def of_layers(x: Array) -> Array:
            return jnp.moveaxis(x.reshape(*tokens.shape, self.layers, self.dim), 2, 0)

        dtype = embedded.dtype
        seen = self.project(embedded) * jnp.asarray(embedded.shape[-1] ** -0.5, dtype)
        found = rows_of(self.embedding[...], tokens).astype(dtype) * jnp.asarray(
            self.dim**0.5, dtype
        )
        both = self.norm(of_layers(seen)) + of_layers(found)
        return both * jnp.asarray(2**-0.5, dtype)


class PerLayerBranch(nnx.Module):
    """norm(out(activation(gate(x)) · inputs)), which a layer adds last to the residual stream."""

    def __init__(
        self,
        config: DecoderConfig,
        stddev: float,
        out_stddev: float,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ) -> None:
        assert config.per_layer is not None
        self.activation = ACTIVATIONS[config.activation]
        width, dim = config.embed_dim, config.per_layer.dim

        def linear(name: str, size: tuple[int, int], stddev: float) -> Linear:
            adapter = adapter_of(config, f"per_layer.{name}", size, rngs=rngs)
            return Linear(size, bias=False, stddev=stddev, rngs=rngs, dtype=dtype, adapter=adapter)

        self.gate = linear("gate", (width, dim), stddev)
        self.out = linear("out", (dim, width), out_stddev)
        self.norm = Norm(config, width, dtype)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        inputs: Float[Array, "B T P"],
        dropout_key: Array | None = None,
    ) -> Float[Array, "B T D"]:
        """What is added at every position."""
        hidden = self.activation(self.gate(x, dropout_key)) * inputs
        return self.norm(self.out(hidden, dropout_key))


def layer_inputs(
    config: DecoderConfig, *, rngs: nnx.Rngs, dtype: DTypeLike
) -> PerLayerTable | None:
    """What makes the inputs of layers, if they have any."""
    return None if config.per_layer is None else PerLayerTable(config, rngs=rngs, dtype=dtype)


def layer_branch(
    config: DecoderConfig, stddev: float, out_stddev: float, *, rngs: nnx.Rngs, dtype: DTypeLike
) -> PerLayerBranch | None:
    """What a layer makes of its own inputs, if it has any."""
    if config.per_layer is None:
        return None
    return PerLayerBranch(config, stddev, out_stddev, rngs=rngs, dtype=dtype)
