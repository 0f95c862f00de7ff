"""The parts of one transformer layer; the decoder stacks and scans them."""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from adakd_jax.models.activations import ACTIVATIONS
from adakd_jax.models.config import DecoderConfig, Mixer
from adakd_jax.models.experts import ExpertFeedForward, Routing
from adakd_jax.models.linear import Linear
from adakd_jax.models.lora import adapter_of
from adakd_jax.models.rope import Rotary, apply_rope
from adakd_jax.models.shared_expert import SharedExpert


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


class Embedding(nnx.Module):
    """A table of vectors [V, D], looked up by row; an index past the end reads the last row."""

    def __init__(
        self, size: tuple[int, int], *, stddev: float, rngs: nnx.Rngs, dtype: DTypeLike
    ) -> None:
        self.embedding = nnx.Param(stddev * jax.random.normal(rngs.params(), size, dtype))


class AttentionProjections(nnx.Module):
    """The four projections around attention, query-key norms and rotation included."""

    def __init__(
        self,
        config: DecoderConfig,
        stddev: float,
        out_stddev: float,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ):
        self.config = config
        queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim

        def linear(
            name: str, size: tuple[int, int], *, bias: bool, stddev: float = stddev
        ) -> Linear:
            adapter = adapter_of(config, f"attn.{name}", size, rngs=rngs)
            return Linear(size, bias=bias, stddev=stddev, rngs=rngs, dtype=dtype, adapter=adapter)

        inward, outward = (config.embed_dim, queries), (queries, config.embed_dim)
        self.query = linear("query", inward, bias=config.qkv_bias)
        self.key = linear("key", (config.embed_dim, keys), bias=config.qkv_bias)
        self.value = linear("value", (config.embed_dim, keys), bias=config.qkv_bias)
        self.out = linear("out", outward, bias=config.out_bias, stddev=out_stddev)
        gated = config.attention_gate
        self.gate = linear("gate", inward, bias=config.qkv_bias) if gated else None

        def norm(width: int) -> Norm | None:
            size = width if config.qk_norm == "width" else config.head_dim
            return Norm(config, size, dtype) if config.qk_norm else None

        self.query_norm, self.key_norm = norm(queries), norm(keys)
        sinks = jnp.zeros(config.num_heads, dtype) if config.attention_sinks else None
        self.sinks = None if sinks is None else nnx.Param(sinks)

    def project(
        self, x: Float[Array, "B T D"], rotary: Rotary | None, dropout_key: Array | None = None
    ) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
        """Queries, keys and values of every position."""
        of_heads = self.config.qk_norm == "head"
        query, key, value = (
            linear(x, dropout_key) for linear in (self.query, self.key, self.value)
        )
        if not of_heads:
            query, key = self._normalised(query, key)
        query, key, value = (
            each.reshape(*each.shape[:-1], -1, self.config.head_dim) for each in (query, key, value)
        )
        if of_heads:
            query, key = self._normalised(query, key)
        if rotary is None:
            return query, key, value
        turn = functools.partial(
            apply_rope, rotary=rotary, neighbours=self.config.rotates_neighbours
        )
        query, key = turn(query), turn(key)
        if rotary.query_scale is not None:
            query = query * rotary.query_scale[:, :, None, None].astype(query.dtype)
        return query, key, value

    def _normalised(self, query: Array, key: Array) -> tuple[Array, Array]:
        if self.query_norm is None or self.key_norm is None:
            return query, key
        return self.query_norm(query), self.key_norm(key)

    def merge_heads(
        self, attended: Float[Array, "B T N H"], dropout_key: Array | None = None
    ) -> Float[Array, "B T D"]:
        """Back from heads to the residual stream."""
        return self.out(attended.reshape(*attended.shape[:2], -1), dropout_key)


class FeedForward(nnx.Module):
    """down(activation(gate(x)) · up(x)), or down(activation(up(x))) without a gate."""

    def __init__(
        self,
        config: DecoderConfig,
        stddev: float,
        out_stddev: float,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
    ):
        self.activation = config.activation
        inward, outward = (config.embed_dim, config.ffw_dim), (config.ffw_dim, config.embed_dim)

        def linear(name: str, size: tuple[int, int], stddev: float = stddev) -> Linear:
            adapter = adapter_of(config, f"ffw.{name}", size, rngs=rngs)
            bias = config.ffw_bias
            return Linear(size, bias=bias, stddev=stddev, rngs=rngs, dtype=dtype, adapter=adapter)

        self.gate = linear("gate", inward) if config.gated_ffw else None
        self.up = linear("up", inward)
        self.down = linear("down", outward, out_stddev)

    def __call__(
        self, x: Float[Array, "B T D"], dropout_key: Array | None = None
    ) -> Float[Array, "B T D"]:
        """Transform every position."""
        activation = ACTIVATIONS[self.activation]
        up = self.up(x, dropout_key)
        if self.gate is None:
            return self.down(activation(up), dropout_key)
        return self.down(activation(self.gate(x, dropout_key)) * up, dropout_key)


class Layer(nnx.Module):
    """One layer, in two halves: attention between them is the caller's.

    Both take the layer's key for the dropout of its adapters; None: no dropout.
    """

    block: ClassVar[Mixer | None] = "attn"  # the attribute that mixes tokens
    attn: AttentionProjections

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        stddev, out_stddev = stddevs(config)

        def norm(there: bool) -> Norm | None:
            return Norm(config, config.embed_dim, dtype) if there else None

        self.config = config
        self.attn_norm = norm(config.pre_norms)
        if self.block is not None:
            setattr(self, self.block, self.make_mixer(config, rngs=rngs, dtype=dtype))
        self.ffw_norm = norm(config.pre_norms and config.parallel != "one_norm")
        if config.experts is None:
            self.ffw = FeedForward(config, stddev, out_stddev, rngs=rngs, dtype=dtype)
        else:
            self.ffw = ExpertFeedForward(
                config, config.experts, stddev, out_stddev, rngs=rngs, dtype=dtype
            )
        shared = config.experts is not None and config.experts.shared_dim is not None
        self.shared = SharedExpert(config, rngs=rngs, dtype=dtype) if shared else None
        self.post_attn_norm = norm(config.post_norms)
        self.post_ffw_norm = norm(config.post_norms)

    @staticmethod
    def make_mixer(config: DecoderConfig, *, rngs: nnx.Rngs, dtype: DTypeLike) -> nnx.Module:
        """What mixes the tokens of such a layer."""
        return AttentionProjections(config, *stddevs(config), rngs=rngs, dtype=dtype)

    def queries_keys_values(
        self, x: Float[Array, "B T D"], rotary: Rotary | None, dropout_key: Array | None = None
    ) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
        """What attention needs of every position."""
        return self.attn.project(self._normed(x), rotary, dropout_key)

    @property
    def sinks(self) -> Float[Array, " N"] | None:
        """What each head gives to nothing, or None."""
        return None if self.attn.sinks is None else self.attn.sinks[...]

    def finish(
        self,
        x: Float[Array, "B T D"],
        attended: Float[Array, "B T N H"],
        segments: Int[Array, "B T"],
        dropout_key: Array | None = None,
    ) -> tuple[Float[Array, "B T D"], Routing | None]:
        """Add what was attended to, and the feed-forward, to the residual stream.

        Args:
            x: the residual stream.
            attended: the values that attention has read.
            segments: 0 for padding, which is not routed.
            dropout_key: see the class.

        Returns:
            the residual stream; and what the router did, None without experts.
        """
        if self.attn.gate is not None:
            gate = self.attn.gate(self._normed(x), dropout_key)
            attended = attended * jax.nn.sigmoid(gate).reshape(attended.shape)
        branch = self.attn.merge_heads(attended, dropout_key)
        return self._add_branches(x, branch, segments, dropout_key)

    def _normed(self, x: Array) -> Array:
        """What the mixer sees of the residual stream."""
        return _through(self.attn_norm, x)

    def _add_branches(
        self, x: Array, branch: Array, segments: Array, dropout_key: Array | None
    ) -> tuple[Array, Routing | None]:
        """Add what a mixer gives, and then the feed-forward, to the residual stream."""
        parallel = self.config.parallel
        after = self._add(x, _through(self.post_attn_norm, branch))
        norm = self.attn_norm if parallel == "one_norm" else self.ffw_norm
        inputs, routing = _through(norm, x if parallel else after), None
        if isinstance(self.ffw, ExpertFeedForward):
            branch, routing = self.ffw(inputs, segments)
        else:
            branch = self.ffw(inputs, dropout_key)
        if self.shared is not None:
            branch = branch + self.shared(inputs)
        return self._add(after, _through(self.post_ffw_norm, branch)), routing

    def _add(self, x: Array, branch: Array) -> Array:
        scale = self.config.residual_scale
        return x + (branch if scale == 1.0 else branch * jnp.asarray(scale, branch.dtype))


def stddevs(config: DecoderConfig) -> tuple[float, float]:
    """Of the kernels of a layer when they are drawn, and of those that write to the residual
    stream.
    """
    # GPT-2's initialisation: 2L residual branches add up, so each starts smaller.
    return config.initializer_range, config.initializer_range / (2 * config.num_layers) ** 0.5


def _through(norm: Norm | None, x: Array) -> Array:
    return x if norm is None else norm(x)
