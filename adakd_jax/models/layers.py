"""The parts of one transformer layer; the decoder stacks and scans them."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from adakd_jax.models.activations import ACTIVATIONS
from adakd_jax.models.attention_projections import AttentionProjections
from adakd_jax.models.config import SOURCES, DecoderConfig, Mixer
from adakd_jax.models.experts import ExpertFeedForward, Routing
from adakd_jax.models.experts_beside import experts_beside
from adakd_jax.models.linear import Linear
from adakd_jax.models.lora import adapter_of
from adakd_jax.models.norm import Norm
from adakd_jax.models.per_layer import layer_branch
from adakd_jax.models.rope import Rotary
from adakd_jax.models.shared_expert import SharedExpert


class Embedding(nnx.Module):
    """A table of vectors [V, D], looked up by row; an index past the end reads the last row."""

    def __init__(
        self, size: tuple[int, int], *, stddev: float, rngs: nnx.Rngs, dtype: DTypeLike
    ) -> None:
        self.embedding = nnx.Param(stddev * jax.random.normal(rngs.params(), size, dtype))


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
        block: str = "ffw",
    ):
        self.activation = config.activation
        width = config.reader_ffw_dim if block == "reader_ffw" else config.ffw_dim
        assert width is not None
        inward, outward = (config.embed_dim, width), (width, config.embed_dim)

        def linear(name: str, size: tuple[int, int], stddev: float = stddev) -> Linear:
            adapter = adapter_of(config, f"{block}.{name}", size, rngs=rngs)
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
        wide_ffw = config.reader_ffw_dim is not None and self.block in SOURCES
        self.ffw_block = "reader_ffw" if wide_ffw else "ffw"
        if config.reader_ffw_dim is not None:
            if self.block is not None:
                made = self.make_feed_forward(config, self.ffw_block, rngs=rngs, dtype=dtype)
                setattr(self, self.ffw_block, made)
        elif config.experts is None or config.experts.beside_dense:
            self.ffw = self.make_feed_forward(config, "ffw", rngs=rngs, dtype=dtype)
        else:
            self.ffw = ExpertFeedForward(
                config, config.experts, stddev, out_stddev, rngs=rngs, dtype=dtype
            )
        shared = config.experts is not None and config.experts.shared_dim is not None
        self.shared = SharedExpert(config, rngs=rngs, dtype=dtype) if shared else None
        self.post_attn_norm = norm(config.post_norms)
        self.post_ffw_norm = norm(config.post_norms)
        self.beside = experts_beside(config, stddev, out_stddev, rngs=rngs, dtype=dtype)
        self.per_layer = layer_branch(config, stddev, out_stddev, rngs=rngs, dtype=dtype)
        self.scalar = nnx.Param(jnp.ones((1,), dtype)) if config.layer_scalar else None

    @classmethod
    def make_mixer(cls, config: DecoderConfig, *, rngs: nnx.Rngs, dtype: DTypeLike) -> nnx.Module:
        """What mixes the tokens of such a layer."""
        assert cls.block is not None
        options: Any = dict(rngs=rngs, dtype=dtype, mixer=cls.block)
        return AttentionProjections(config, *stddevs(config), **options)

    @staticmethod
    def make_feed_forward(
        config: DecoderConfig, block: str, *, rngs: nnx.Rngs, dtype: DTypeLike
    ) -> FeedForward:
        """The feed-forward of that name."""
        return FeedForward(config, *stddevs(config), rngs=rngs, dtype=dtype, block=block)

    def queries_keys_values(
        self, x: Float[Array, "B T D"], rotary: Rotary | None, dropout_key: Array | None = None
    ) -> tuple[
        Float[Array, "B T N H"], tuple[Float[Array, "B T K H"], Float[Array, "B T K H"]] | None
    ]:
        """What attention needs of every position: queries, and keys and values, None where they
        are those of another layer.
        """
        return self._attention.project(self._normed(x), rotary, dropout_key)

    @property
    def sinks(self) -> Float[Array, " N"] | None:
        """What each head gives to nothing, or None."""
        sinks = self._attention.sinks
        return None if sinks is None else sinks[...]

    @property
    def _attention(self) -> AttentionProjections:
        assert self.block is not None
        return getattr(self, self.block)

    def finish(
        self,
        x: Float[Array, "B T D"],
        attended: Float[Array, "B T N H"],
        segments: Int[Array, "B T"],
        dropout_key: Array | None = None,
        inputs: Float[Array, "B T P"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Routing | None]:
        """Add what was attended to, and the feed-forward, to the residual stream.

        Args:
            x: the residual stream.
            attended: the values that attention has read.
            segments: 0 for padding, which is not routed.
            dropout_key: see the class.
            inputs: those that the layer has of its own, or None.

        Returns:
            the residual stream; and what the router did, None without experts.
        """
        attention = self._attention
        if attention.gate is not None:
            gate = attention.gate(self._normed(x), dropout_key)
            attended = attended * jax.nn.sigmoid(gate).reshape(attended.shape)
        branch = attention.merge_heads(attended, dropout_key)
        x, routing = self._add_branches(x, branch, segments, dropout_key)
        if self.per_layer is not None:
            assert inputs is not None
            x = x + self.per_layer(x, inputs, dropout_key)
        if self.scalar is not None:
            # A constant of the model, which is not trained.
            x = x * jax.lax.stop_gradient(self.scalar[...])[None, None].astype(x.dtype)
        return x, routing

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
        feed_forward = getattr(self, self.ffw_block)
        if isinstance(feed_forward, ExpertFeedForward):
            branch, routing = feed_forward(inputs, segments)
        else:
            branch = feed_forward(inputs, dropout_key)
        if self.shared is not None:
            branch = branch + self.shared(inputs)
        if self.beside is not None:
            branch, routing = self.beside(after, branch, segments)
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


class WideLayer(Layer):
    """A layer with wide heads."""

    block: ClassVar[Mixer | None] = "wide"


class ReaderLayer(Layer):
    """A layer that attends to the keys and values of an earlier one."""

    block: ClassVar[Mixer | None] = "reader"


class WideReaderLayer(Layer):
    """The same with wide heads."""

    block: ClassVar[Mixer | None] = "wide_reader"
