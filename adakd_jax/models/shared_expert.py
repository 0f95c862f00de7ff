"""The expert that every token has, beside those that a router chooses for it."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from adakd_jax.models.activations import ACTIVATIONS
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.linear import Linear


class SharedExpert(nnx.Module):
    """sigmoid(x · share) · down(activation(gate(x)) · up(x)), as in Qwen2's and Qwen3-Next's models
    with experts. It has no adapters: peft takes their names for those of the other experts.
    """

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        assert config.experts is not None and config.experts.shared_dim is not None
        self.activation = ACTIVATIONS[config.activation]
        width, hidden = config.embed_dim, config.experts.shared_dim
        stddev = config.initializer_range

        def linear(size: tuple[int, int], stddev: float = stddev) -> Linear:
            return Linear(size, bias=False, stddev=stddev, rngs=rngs, dtype=dtype)

        self.gate = linear((width, hidden))
        self.up = linear((width, hidden))
        # Smaller, as all that writes to the residual stream.
        self.down = linear((hidden, width), stddev / (2 * config.num_layers) ** 0.5)
        # Not called a kernel: like a router's, it is never rounded, nor cast to a narrower type.
        self.share = nnx.Param(stddev * jax.random.normal(rngs.params(), (width, 1), dtype))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Transform every position."""
        hidden = self.activation(self.gate(x)) * self.up(x)
        share = jnp.einsum(
            "BTD,DO->BTO",
            x.astype(jnp.float32),
            self.share[...].astype(jnp.float32),
            precision="highest",
        )
        return self.down(hidden) * jax.nn.sigmoid(share).astype(x.dtype)
