"""Layers whose tokens are mixed by a gated delta net (Qwen3-Next, Qwen3.5)."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from adakd_jax.models.activations import ACTIVATIONS
from adakd_jax.models.config import DecoderConfig, DeltaNetSizes, Mixer
from adakd_jax.models.delta_rule import causal_convolution, gated_delta_rule
from adakd_jax.models.experts import Routing
from adakd_jax.models.layers import Layer, stddevs
from adakd_jax.models.linear import Linear
from adakd_jax.models.lora import adapter_of
from adakd_jax.models.norm import Norm

_LENGTH_EPS = 1e-6  # added to the squared length of queries and keys


class DeltaState(NamedTuple):
    """What a delta net keeps of the tokens so far: the last queries, keys and values that went into
    its convolutions, [B, kernel − 1, F], and its memory [B, K, G, D, E], float32.
    """

    queries: Array
    keys: Array
    values: Array
    memory: Array


def delta_state(sizes: DeltaNetSizes, rows: int, dtype: DTypeLike) -> DeltaState:
    """Of no tokens."""
    heads = sizes.key_heads, sizes.value_heads // sizes.key_heads
    keys, values = sizes.key_heads * sizes.key_dim, sizes.value_heads * sizes.value_dim
    queries, keys, values = (
        jnp.zeros((rows, sizes.kernel - 1, width), dtype) for width in (keys, keys, values)
    )
    memory = jnp.zeros((rows, *heads, sizes.key_dim, sizes.value_dim), jnp.float32)
    return DeltaState(queries, keys, values, memory)


class DeltaNet(nnx.Module):
    """Convolution of projected queries, keys and values, the gated delta rule, norm, gate."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        assert config.delta_net is not None
        self.sizes = sizes = config.delta_net
        self.activation = ACTIVATIONS[config.activation]
        stddev, out_stddev = stddevs(config)
        keys, values = sizes.key_heads * sizes.key_dim, sizes.value_heads * sizes.value_dim

        def linear(name: str, inward: int, outward: int, stddev: float = stddev) -> Linear:
            size = (inward, outward)
            adapter = adapter_of(config, f"delta.{name}", size, rngs=rngs)
            return Linear(size, bias=False, stddev=stddev, rngs=rngs, dtype=dtype, adapter=adapter)

        def taps(width: int) -> nnx.Param:
            shape, bound = (sizes.kernel, 1, width), sizes.kernel**-0.5
            drawn = jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
            return nnx.Param(drawn.astype(dtype))

        self.query = linear("query", config.embed_dim, keys)
        self.key = linear("key", config.embed_dim, keys)
        self.value = linear("value", config.embed_dim, values)
        self.gate = linear("gate", config.embed_dim, values)
        self.write = linear("write", config.embed_dim, sizes.value_heads)
        self.decay = linear("decay", config.embed_dim, sizes.value_heads)
        self.out = linear("out", values, config.embed_dim, out_stddev)
        self.query_filter, self.key_filter, self.value_filter = taps(keys), taps(keys), taps(values)
        rates = jax.random.uniform(rngs.params(), (sizes.value_heads,), minval=0.01, maxval=16.0)
        self.log_rate = nnx.Param(jnp.log(rates).astype(dtype))
        self.decay_bias = nnx.Param(jnp.ones((sizes.value_heads,), dtype))
        self.norm = Norm(dataclasses.replace(config, norm="rms"), sizes.value_dim, dtype)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        segments: Int[Array, "B T"],
        valid: Array,
        before: DeltaState,
        dropout_key: Array | None = None,
    ) -> tuple[Float[Array, "B T D"], DeltaState]:
        """Mix the tokens of each document; where not valid, they leave no trace.

        Args:
            x: the layer's input, after its norm.
            segments: document of each token, consecutive.
            valid: bool [B, T].
            before: of the tokens before, in the document of the first one.
            dropout_key: of the layer.
        """
        x = jnp.where(valid[..., None], x, 0)
        # Each by itself: side by side, heads that are split over devices would have to move.
        mixers = (
            (self.query, self.query_filter, before.queries),
            (self.key, self.key_filter, before.keys),
            (self.value, self.value_filter, before.values),
        )
        mixed, held = [], []
        for linear, taps, earlier in mixers:
            inputs = linear(x, dropout_key)
            seen = causal_convolution(inputs, taps[...][:, 0], segments, earlier)
            mixed.append(self.activation(seen.astype(jnp.float32)))
            kept = jnp.concatenate([earlier, inputs.astype(earlier.dtype)], axis=1)
            held.append(kept[:, kept.shape[1] - earlier.shape[1] :])
        query, key, value = self._heads(*mixed)
        write, log_decay = self._gates(x, valid, dropout_key)
        out, memory = gated_delta_rule(query, key, value, log_decay, write, segments, before.memory)
        out = out.reshape(*x.shape[:2], self.sizes.value_heads, -1).astype(x.dtype)
        gate = self.gate(x, dropout_key).astype(jnp.float32).reshape(out.shape)
        out = (self.norm(out).astype(jnp.float32) * jax.nn.silu(gate)).astype(x.dtype)
        return self.out(out.reshape(*x.shape[:2], -1), dropout_key), DeltaState(
            held[0], held[1], held[2], memory
        )

    def _heads(self, query: Array, key: Array, value: Array) -> tuple[Array, Array, Array]:
        sizes = self.sizes
        lead = (*query.shape[:2], sizes.key_heads)
        query, key = (_unit(each.reshape(*lead, sizes.key_dim)) for each in (query, key))
        return query * sizes.key_dim**-0.5, key, value.reshape(*lead, -1, sizes.value_dim)

    def _gates(self, x: Array, valid: Array, dropout_key: Array | None) -> tuple[Array, Array]:
        """How much a token writes, in [0, 1], and the log of what it leaves, ≤ 0: [B, T, K, G]."""
        write, decay = (
            each(x, dropout_key).astype(jnp.float32) for each in (self.write, self.decay)
        )
        heads = (1, 1, self.sizes.value_heads)
        rate = jnp.exp(self.log_rate[...].astype(jnp.float32)).reshape(heads)
        bias = self.decay_bias[...].astype(jnp.float32).reshape(heads)
        log_decay = -rate * jax.nn.softplus(decay + bias)

        def of_heads(gate: Array) -> Array:
            gate = jnp.where(valid[..., None], gate, 0.0)
            return gate.reshape(*x.shape[:2], self.sizes.key_heads, -1)

        return of_heads(jax.nn.sigmoid(write)), of_heads(log_decay)


def _unit(x: Array) -> Array:
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + _LENGTH_EPS)


class DeltaLayer(Layer):
    """A layer with a delta net."""

    block: ClassVar[Mixer | None] = "delta"
    delta: DeltaNet

    @classmethod
    def make_mixer(cls, config: DecoderConfig, *, rngs: nnx.Rngs, dtype: DTypeLike) -> nnx.Module:
        """What mixes the tokens of such a layer."""
        return DeltaNet(config, rngs=rngs, dtype=dtype)

    def run(
        self,
        x: Float[Array, "B T D"],
        segments: Int[Array, "B T"],
        valid: Array,
        before: DeltaState | None = None,
        dropout_key: Array | None = None,
    ) -> tuple[Float[Array, "B T D"], DeltaState, Routing | None]:
        """The whole layer, what it keeps (see `DeltaNet`), and what the router did, None without
        experts. No `before`: of no tokens.
        """
        if before is None:
            before = delta_state(self.delta.sizes, len(x), x.dtype)
        mixed, after = self.delta(self._normed(x), segments, valid, before, dropout_key)
        x, routing = self._add_branches(x, mixed, valid.astype(jnp.int32), dropout_key)
        return x, after, routing
