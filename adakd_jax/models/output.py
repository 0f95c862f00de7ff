"""From the last hidden states to scores of the tokens."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from adakd_jax.axes import Head
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.layers import Embedding


class OutputEmbedding(Embedding):
    """An output embedding of its own, for models that do not share the input's."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        size = (config.vocab_size, config.embed_dim)
        super().__init__(size, stddev=config.initializer_range, rngs=rngs, dtype=dtype)
        self.config = config

    def __call__(self) -> Head:
        """The output head."""
        return head_of(self.config, self.embedding[...])


def head_of(config: DecoderConfig, weight: Array) -> Head:
    """The output head of a model whose output embedding that is."""
    return Head(weight, config.vocab_size, scale=config.logit_scale, soft_cap=config.logit_soft_cap)


def logits(hidden: Float[Array, "*lead D"], head: Head) -> Float[Array, "*lead V"]:
    """Scores of the tokens that exist: soft_cap·tanh((hidden · weightᵀ + bias)·scale / soft_cap),
    float32 [..., size].

    The product runs in hidden's dtype and is accumulated in float32.
    """
    scores = jnp.einsum(
        "...D,VD->...V",
        hidden,
        head.weight.astype(hidden.dtype),
        preferred_element_type=jnp.float32,
    )[..., : head.size]
    if head.bias is not None:
        bias = head.bias[: head.size].astype(jnp.float32)
        scores = scores + bias.reshape((1,) * (scores.ndim - 1) + bias.shape)
    scores = scores * head.scale
    return scores if head.soft_cap is None else head.soft_cap * jnp.tanh(scores / head.soft_cap)
