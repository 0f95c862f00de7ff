"""Experts beside a dense feed-forward, the router's scores of a norm of its own (Gemma 4)."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from adakd_jax.models.config import DecoderConfig, Experts
from adakd_jax.models.experts import ExpertKernels, Router, Routing, mixed
from adakd_jax.models.norm import Norm, unit_rms


class ScaledRouter(Router):
    """Scores of x / rms(x) · scale / √D, and a number that multiplies what each expert gives."""

    def __init__(
        self, config: DecoderConfig, experts: Experts, *, rngs: nnx.Rngs, dtype: DTypeLike
    ) -> None:
        super().__init__(config, experts, rngs=rngs, dtype=dtype)
        self.eps = config.norm_eps
        self.scale = nnx.Param(jnp.ones((config.embed_dim,), dtype))
        self.expert_scale = nnx.Param(jnp.ones((experts.count,), dtype))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T E"]:
        """For every token."""
        wide = unit_rms(x.astype(jnp.float32), self.eps)
        scale = self.scale[...].astype(jnp.float32)[None, None]
        return super().__call__(wide * scale * x.shape[-1] ** -0.5)


class ExpertsBeside(nnx.Module):
    """norm(dense) + norm(Σ over the chosen experts of scale · weight · expert(norm(x)))."""

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
        self.router = ScaledRouter(config, experts, rngs=rngs, dtype=dtype)
        stddevs = (stddev, out_stddev)
        self.experts = ExpertKernels(config, experts.count, *stddevs, rngs=rngs, dtype=dtype)
        self.norm = Norm(config, config.embed_dim, dtype)
        self.dense_norm = Norm(config, config.embed_dim, dtype)
        self.out_norm = Norm(config, config.embed_dim, dtype)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        dense: Float[Array, "B T D"],
        segments: Int[Array, "B T"],
    ) -> tuple[Float[Array, "B T D"], Routing]:
        """Transform every token.

        Args:
            x: the residual stream.
            dense: what the dense feed-forward makes of it.
            segments: 0 for padding, which no expert has.

        Returns:
            in x's dtype; and what the router did.
        """
        scores = self.router(x)
        scale = self.router.expert_scale[...].astype(jnp.float32)
        y, routing = mixed(
            self.config, self.of, self.norm(x), scores, self.experts, segments, scale
        )
        return self.dense_norm(dense) + self.out_norm(y), routing


def experts_beside(
    config: DecoderConfig, stddev: float, out_stddev: float, *, rngs: nnx.Rngs, dtype: DTypeLike
) -> ExpertsBeside | None:
    """Those of a layer, if it has any."""
    if config.experts is None or not config.experts.beside_dense:
        return None
    return ExpertsBeside(config, config.experts, stddev, out_stddev, rngs=rngs, dtype=dtype)
