"""A matrix product, with bias and adapter if it has them."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from adakd_jax.models.lora import Adapter
from adakd_jax.models.projection import project
from adakd_jax.models.quantized import restored


class Linear(nnx.Module):
    """x · kernel + adapter(x) + bias, the parameters cast to x's dtype; kernel [in, out]."""

    def __init__(
        self,
        size: tuple[int, int],
        *,
        bias: bool,
        stddev: float,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        adapter: Adapter | None = None,
    ) -> None:
        self.kernel = nnx.Param(stddev * jax.random.normal(rngs.params(), size, dtype))
        self.bias = nnx.Param(jnp.zeros(size[1:], dtype)) if bias else None
        self.adapter = adapter

    def __call__(
        self, x: Float[Array, "*lead D"], dropout_key: Array | None = None
    ) -> Float[Array, "*lead F"]:
        """Multiply the last dimension; the key is the adapter's, None: no dropout."""
        y = project(x, restored(self.kernel[...], x.dtype))
        if self.adapter is not None:
            y = y + self.adapter(x, dropout_key)
        if self.bias is not None:
            bias = self.bias[...].astype(x.dtype)
            y = y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)
        return y
