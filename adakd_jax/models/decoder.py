"""One decoder for every family: embeddings, a scan over stacked layers, norm and output head."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from adakd_jax.axes import Head, keep_rows_split, rows_of
from adakd_jax.models.attention import attention, for_wide_heads
from adakd_jax.models.cache import KVCache, through_cache, write_layer
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.delta_net import DeltaLayer, DeltaState
from adakd_jax.models.experts import Routing, no_routing
from adakd_jax.models.layers import Embedding, Layer
from adakd_jax.models.norm import Norm
from adakd_jax.models.output import OutputEmbedding, head_of
from adakd_jax.models.per_layer import layer_inputs
from adakd_jax.models.positions import Reads, check_positions
from adakd_jax.models.reading import Shared, attended, nothing_shared
from adakd_jax.models.stack import LayerPlace, each_layer, scan_layers, stacked_layers

# Residual stream, what the routers of the layers so far did, and what is kept around them.
ForwardCarry = tuple[Array, Routing | None, Any]
# Residual stream, and what all layers have stored.
DecodeCarry = tuple[Array, dict[str, Any]]
# `around(apply, layer, carry, place)` in place of `apply(layer, carry, place)`, which it calls.
Around = Callable[..., tuple[ForwardCarry, Shared]]


class Forward(NamedTuple):
    """What a forward pass returns: hidden states [B, T, D] after the final norm; the residual
    stream after each of M layers, [B, T, M, D], or None; what the routers did, [L, …], or None;
    and what was kept around the layers.
    """

    hidden: Array
    after: Array | None
    routing: Routing | None
    kept: Any = None


class Decoder(nnx.Module):
    """A decoder-only transformer: tokens → last hidden states; `logits` and the losses turn those
    into more.

    Parameters are stacked over layers, [L, ...], kernels [L, in, out]; see `layer_kinds`. Split it
    once and stay with pytrees: `graphdef, params = nnx.split(model)`, then
    `nnx.merge(graphdef, params)(tokens, positions, segments)`.
    """

    def __init__(
        self, config: DecoderConfig, *, rngs: nnx.Rngs, param_dtype: DTypeLike = jnp.float32
    ) -> None:
        self.config = config

        def table(rows: int) -> Embedding:
            size = (rows, config.embed_dim)
            return Embedding(size, stddev=config.initializer_range, rngs=rngs, dtype=param_dtype)

        self.embed = table(config.vocab_size)
        self.position_embed = (
            None if config.ropes else table(config.max_positions + config.position_offset)
        )
        self.per_layer = layer_inputs(config, rngs=rngs, dtype=param_dtype)
        self.layers = stacked_layers(config, rngs=rngs, dtype=param_dtype)
        self.final_norm = Norm(config, config.embed_dim, param_dtype)
        if not config.tied:
            # Called as `model.head()`, in place of the method below.
            self.head = OutputEmbedding(config, rngs=rngs, dtype=param_dtype)

    def head(self) -> Head:
        """The output head; where it is tied, its weight is the input embedding itself."""
        return head_of(self.config, self.embed.embedding[...])

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
        *,
        dropout_key: Array | None = None,
    ) -> Float[Array, "B T D"]:
        """Hidden states of packed rows, after the final norm.

        Args:
            tokens: token ids.
            positions: position of each token in its document.
            segments: document of each token, consecutive; 0 is padding, whose hidden states are
                finite and meaningless.
            dropout_key: for the dropout of adapters, in training; None: no dropout.

        Returns:
            [B, T, D] in the compute dtype.

        Raises:
            TooLongError: T is more than there are learned positions.
        """
        return self.forward(tokens, positions, segments, dropout_key=dropout_key).hidden

    def forward(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
        layers: tuple[int, ...] | None = None,
        *,
        dropout_key: Array | None = None,
        with_routing: bool = False,
        around: Around | None = None,
        kept: Any = None,
    ) -> Forward:
        """What `__call__` returns, and what else a loss may be of.

        Args:
            tokens: token ids.
            positions: see `__call__`.
            segments: see `__call__`.
            layers: numbers from 0, of which to return the residual stream; None: of none. That
                after every layer is then in memory at once.
            dropout_key: see `__call__`.
            with_routing: whether to return what the routers did, of a model with experts.
            around: what is done around each layer, such as to observe it or to leave it out.
            kept: what that keeps, before the first layer.
        """
        check_positions(self.config, [Reads("a row of tokens", tokens.shape[1])], "the model")
        attend = functools.partial(self._attend, query_segments=segments, key_segments=segments)

        def added(routing: Routing | None, own: Routing | None, place: LayerPlace) -> Any:
            if routing is None:
                return None
            return jax.tree.map(lambda all, one: all.at[place.index].set(one), routing, own)

        def apply(
            layer: Layer, carry: ForwardCarry, place: LayerPlace
        ) -> tuple[ForwardCarry, Shared]:
            (x, routing, kept), key = carry, place.dropout_key
            if isinstance(layer, DeltaLayer):
                x, _, own = layer.run(x, segments, segments > 0, dropout_key=key)
                return (keep_rows_split(x), added(routing, own, place), kept), {}
            assert layer.block is not None
            query, made = layer.queries_keys_values(x, place.rotary, key)
            keys_values, shared = attended(layer.block, made, place.shared)
            read = attend(query, *keys_values, window=place.window, sinks=layer.sinks)
            x, own = layer.finish(x, read, segments, key, place.inputs)
            return (keep_rows_split(x), added(routing, own, place), kept), shared

        experts = self.config.experts
        routing = None
        if experts is not None and with_routing:
            routing = no_routing(self.config.num_layers, experts.count)
        x = keep_rows_split(self._embed(tokens, positions))
        (x, routing, kept), carries = scan_layers(
            self.config,
            self.layers,
            apply if around is None else functools.partial(around, apply),
            (x, routing, kept),
            positions,
            dropout_key,
            collect=layers is not None,
            inputs=self._layer_inputs(tokens, x),
            shared=nothing_shared(self.config, tokens.shape, x.dtype),
        )
        after = None if layers is None else jnp.moveaxis(carries[0][np.array(layers)], 0, -2)
        return Forward(self.final_norm(x), after, routing, kept)

    def decode(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        valid: Bool[Array, "B T"],
        cache: KVCache,
        views: Sequence[Any] | None = None,
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Hidden states of the next T tokens of every row, and the cache with those tokens in it.

        Args:
            tokens: token ids; T is the prompt's length at first, then usually 1.
            positions: position of each token in its row, padding not counted.
            valid: False for padding (on the left of the prompt, or after a row has ended).
            cache: from `init_cache`, with at least T free slots.
            views: from `layer_views`, of the layers' parameters; the cache is then cut into layers.

        Returns:
            hidden states [B, T, D] after the final norm (meaningless where not valid), and the new
            cache. The cache is carried through the layers, so that a jitted loop updates it in
            place.
        """
        filled = jax.lax.dynamic_update_slice(cache.valid, valid, (0, cache.index))
        attend = functools.partial(
            self._attend,
            query_segments=valid.astype(jnp.int32),
            key_segments=filled.astype(jnp.int32),
            query_offset=cache.index,
        )

        def apply(
            layer: Layer, carry: DecodeCarry, place: LayerPlace
        ) -> tuple[DecodeCarry, Shared]:
            x, stored = carry
            if isinstance(layer, DeltaLayer):
                before = DeltaState(*(jnp.asarray(each[place.row]) for each in stored["delta"]))
                # A row is one document.
                x, after, _ = layer.run(x, jnp.ones_like(tokens), valid, before)
                both = zip(stored["delta"], after, strict=True)
                after = tuple(write_layer(old, new, place.row) for old, new in both)
                return (x, stored | {"delta": after}), {}
            assert layer.block is not None
            query, made = layer.queries_keys_values(x, place.rotary)
            where = layer.block, place.row, cache.index
            keys_values, stored = through_cache(self.config, stored, made, where, query.dtype)
            read = attend(query, *keys_values, window=place.window, sinks=layer.sinks)
            x, _ = layer.finish(x, read, valid.astype(jnp.int32), inputs=place.inputs)
            return (x, stored), {}

        x = self._embed(tokens, positions)
        carry, inputs = (x, cache.stored), self._layer_inputs(tokens, x)
        config, length = self.config, filled.shape[1]
        if views is None:
            (x, stored), _ = scan_layers(
                config, self.layers, apply, carry, positions, length=length, inputs=inputs
            )
        else:
            x, stored = each_layer(config, apply, carry, positions, views, length, inputs)
        index = cache.index + jnp.int32(tokens.shape[1])
        return self.final_norm(x), KVCache(stored, filled, index)

    def _embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        dtype = jnp.dtype(self.config.compute_dtype)
        x = rows_of(self.embed.embedding[...], tokens).astype(dtype)
        if self.config.embed_scale != 1.0:
            x = x * jnp.asarray(self.config.embed_scale, dtype)
        if self.position_embed is not None:
            offset = self.config.position_offset
            rows = positions + offset if offset else positions
            x = x + rows_of(self.position_embed.embedding[...], rows).astype(dtype)
        return x

    def _layer_inputs(
        self, tokens: Int[Array, "B T"], embedded: Float[Array, "B T D"]
    ) -> Float[Array, "L B T P"] | None:
        return None if self.per_layer is None else self.per_layer(tokens, embedded)

    def _attend(self, query: Array, key: Array, value: Array, **options: Any) -> Array:
        config = self.config
        named, head_dim = config.attention_implementation, query.shape[-1]
        if head_dim != config.head_dim:
            named = for_wide_heads(named, head_dim)
        options |= dict(soft_cap=config.attention_soft_cap, scale=config.attention_scale)
        return attention(query, key, value, implementation=named, **options)


def abstract_decoder(
    config: DecoderConfig, dtype: DTypeLike = jnp.float32
) -> tuple[nnx.GraphDef, dict[str, Any]]:
    """Structure and parameter shapes of a decoder, without allocating anything.

    Returns:
        the graph definition, and the parameters as nested dicts of `jax.ShapeDtypeStruct`.
    """
    model = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0), param_dtype=dtype))
    graphdef, params = nnx.split(model)
    return graphdef, nnx.to_pure_dict(params)


def random_params(
    config: DecoderConfig, key: Array, dtype: DTypeLike = jnp.float32, *, shardings: Any = None
) -> dict[str, Any]:
    """Freshly initialised parameters, nested dicts of arrays.

    Kernels and embeddings are normal with `config.initializer_range`, divided by √(2L) where they
    write to the residual stream (GPT-2); norms are the identity, biases zero. With `shardings`, a
    tree like them, each is made in its shards, and of the same numbers as on one device.
    """

    @functools.partial(jax.jit, out_shardings=shardings)
    def make(key: Array) -> dict[str, Any]:
        return nnx.to_pure_dict(nnx.state(Decoder(config, rngs=nnx.Rngs(key), param_dtype=dtype)))

    return make(key)
