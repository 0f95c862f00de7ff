"""Norms of the last dimension, computed in float32."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from adakd_jax.models.config import DecoderConfig


class Norm(nnx.Module):
    """RMS norm, RMS norm with weight 1 + scale (Gemma), or layer norm, with bias or without.

    Computed in float32, returned in x's dtype.
    """

    def __init__(self, config: DecoderConfig, size: int, dtype: DTypeLike) -> None:
        self.kind, self.eps = config.norm, config.norm_eps
        self.centred = self.kind in ("layer", "layer_without_bias")
        self.scale = nnx.Param(
            jnp.full((size,), 0.0 if self.kind == "rms_one_plus" else 1.0, dtype)
        )
        self.bias = nnx.Param(jnp.zeros((size,), dtype)) if self.kind == "layer" else None

    def __call__(self, x: Float[Array, "*lead D"]) -> Float[Array, "*lead D"]:
        """Normalise the last dimension."""
        wide = x.astype(jnp.float32)
        if self.centred:
            wide = wide - wide.mean(axis=-1, keepdims=True)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        lead = (1,) * (x.ndim - 1)
        scale = self.scale[...].astype(jnp.float32).reshape(*lead, -1)
        wide = wide * (1.0 + scale if self.kind == "rms_one_plus" else scale)
        if self.bias is not None:
            wide = wide + self.bias[...].astype(jnp.float32).reshape(*lead, -1)
        return wide.astype(x.dtype)


def unit_rms(x: Float[Array, "*lead D"], eps: float) -> Float[Array, "*lead D"]:
    """An RMS norm without a weight."""
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide * wide, axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(mean + eps)).astype(x.dtype)
