"""The projections around attention."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from adakd_jax.models.config import SOURCES, DecoderConfig, Mixer
from adakd_jax.models.layer_kinds import heads_of
from adakd_jax.models.linear import Linear
from adakd_jax.models.lora import adapter_of
from adakd_jax.models.norm import Norm, unit_rms
from adakd_jax.models.rope import Rotary, apply_rope


class AttentionProjections(nnx.Module):
    """The four projections around attention, query-key norms and rotation included. Where keys and
    values are those of another layer, there are queries and the way out alone.
    """

    def __init__(
        self,
        config: DecoderConfig,
        stddev: float,
        out_stddev: float,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        mixer: Mixer = "attn",
    ):
        self.config = config
        self.head_dim, kv_heads = heads_of(config, mixer)
        queries, keys = config.num_heads * self.head_dim, kv_heads * self.head_dim
        reads = mixer in SOURCES
        same = mixer == "wide" and config.wide is not None and config.wide.values_are_keys

        def linear(
            name: str, size: tuple[int, int], *, bias: bool, stddev: float = stddev
        ) -> Linear:
            adapter = adapter_of(config, f"{mixer}.{name}", size, rngs=rngs)
            return Linear(size, bias=bias, stddev=stddev, rngs=rngs, dtype=dtype, adapter=adapter)

        inward, outward = (config.embed_dim, queries), (queries, config.embed_dim)
        to_keys = (config.embed_dim, keys)
        self.query = linear("query", inward, bias=config.qkv_bias)
        self.key = None if reads else linear("key", to_keys, bias=config.qkv_bias)
        self.value = None if reads or same else linear("value", to_keys, bias=config.qkv_bias)
        self.out = linear("out", outward, bias=config.out_bias, stddev=out_stddev)
        gated = config.attention_gate
        self.gate = linear("gate", inward, bias=config.qkv_bias) if gated else None

        def norm(width: int) -> Norm | None:
            size = width if config.qk_norm == "width" else self.head_dim
            return Norm(config, size, dtype) if config.qk_norm else None

        self.query_norm, self.key_norm = norm(queries), None if reads else norm(keys)
        sinks = jnp.zeros(config.num_heads, dtype) if config.attention_sinks else None
        self.sinks = None if sinks is None else nnx.Param(sinks)

    def project(
        self, x: Float[Array, "B T D"], rotary: Rotary | None, dropout_key: Array | None = None
    ) -> tuple[
        Float[Array, "B T N H"], tuple[Float[Array, "B T K H"], Float[Array, "B T K H"]] | None
    ]:
        """Queries of every position, and keys and values, None where they are those of another
        layer.
        """
        of_heads = self.config.qk_norm == "head"
        query = self.query(x, dropout_key)
        key = None if self.key is None else self.key(x, dropout_key)
        value = key if self.value is None else self.value(x, dropout_key)
        if not of_heads:
            query, key = self._normalised(query, key)
        query, key, value = self._split(query), _through(self._split, key), self._split_value(value)
        if of_heads:
            query, key = self._normalised(query, key)
        if rotary is not None:
            turn = functools.partial(
                apply_rope, rotary=rotary, neighbours=self.config.rotates_neighbours
            )
            query, key = turn(query), _through(turn, key)
            if rotary.query_scale is not None:
                query = query * rotary.query_scale[:, :, None, None].astype(query.dtype)
        return query, None if key is None or value is None else (key, value)

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], -1, self.head_dim)

    def _split_value(self, value: Array | None) -> Array | None:
        value = _through(self._split, value)
        if value is None or not self.config.value_norm:
            return value
        return unit_rms(value, self.config.norm_eps)

    def _normalised(self, query: Array, key: Array | None) -> tuple[Array, Array | None]:
        if self.query_norm is None:
            return query, key
        return self.query_norm(query), _through(self.key_norm, key)

    def merge_heads(
        self, attended: Float[Array, "B T N H"], dropout_key: Array | None = None
    ) -> Float[Array, "B T D"]:
        """Back from heads to the residual stream."""
        return self.out(attended.reshape(*attended.shape[:2], -1), dropout_key)


def _through(function: Callable[[Array], Array] | None, x: Array | None) -> Array | None:
    return x if function is None or x is None else function(x)
