"""What the parts of a model do on some rows, all in one forward pass."""

import collections
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from adakd_jax.axes import TokenBatch, replicated
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.experts import ExpertFeedForward
from adakd_jax.models.layer_kinds import layers_with
from adakd_jax.models.layers import Layer
from adakd_jax.models.stack import LayerPlace
from adakd_jax.pruning.expert_neurons import hidden_squares

_TINY = 1e-30  # added to squared lengths


class Observed(NamedTuple):
    """Of one batch, float32; of A layers with attention, K key-value heads.

    `tokens` [] counts those that are no padding, `cosine` [L] sums over them how alike a layer's
    input and output are. The others are norms of activations, over the rows of the batch at each
    place, and then the mean over places: of what goes into the last product of a feed-forward,
    `neurons` [L, F]; of what the heads of a group attend to, `groups` [A, K]; of what goes into
    mixers and feed-forwards, after its norm, the sum over all of these, `channels` [D]. Of experts,
    `neurons` [L, E, F] are sums of squares over their tokens, times their weights, and `experts`
    [L, E] sums of the router's probabilities.
    """

    tokens: Array
    cosine: Array
    neurons: Array
    groups: Array
    channels: Array
    experts: Array | None


class Tap(nnx.Module):
    """Shows what goes into a part of a layer, and leaves it as it is."""

    def __init__(self, part: Callable[..., Any], show: Callable[[Array], None]) -> None:
        self.part, self.show = part, show

    def __call__(self, x: Array, *rest: Any) -> Any:
        """What the part makes of it."""
        self.show(x)
        return self.part(x, *rest)


@functools.partial(jax.jit, static_argnames="graphdef")
def observe(graphdef: nnx.GraphDef, params: Any, batch: TokenBatch) -> Observed:
    """Observes a model on a batch [B, T].

    Scope: the global batch; on a mesh, its rows are split over the devices of the context's.
    """
    model = nnx.merge(graphdef, params)
    config, there = model.config, batch.segments > 0
    around = functools.partial(_around, config, there)
    found = model.forward(
        batch.tokens,
        batch.positions,
        batch.segments,
        with_routing=config.experts is not None,
        around=around,
        kept=_nothing(config),
    )
    seen = found.kept._replace(tokens=there.sum().astype(jnp.float32))
    if found.routing is not None:
        seen = seen._replace(experts=found.routing.probability)
    return jax.tree.map(replicated, seen)


def _nothing(config: DecoderConfig) -> Observed:
    layers, neurons = config.num_layers, (config.ffw_dim,)
    if has_neurons_of_experts(config):
        assert config.experts is not None
        neurons = (config.experts.count, config.ffw_dim)
    attn = len(layers_with(config, "attn"))
    return Observed(
        tokens=jnp.zeros(()),
        cosine=jnp.zeros(layers),
        neurons=jnp.zeros((layers, *neurons)),
        groups=jnp.zeros((attn, config.num_kv_heads)),
        channels=jnp.zeros(config.embed_dim),
        experts=None,
    )


def _around(
    config: DecoderConfig,
    there: Array,
    apply: Callable[..., Any],
    layer: Layer,
    carry: Any,
    place: LayerPlace,
) -> Any:
    """One layer, whose parts show what goes into them."""
    (x, _, seen), index, shown = carry, place.index, collections.defaultdict(list)

    def tap(owner: Any, part: str, name: str) -> None:
        setattr(owner, part, Tap(getattr(owner, part), shown[name].append))

    mixer = getattr(layer, layer.block or "attn")
    tap(mixer, "query", "channels")
    if layer.block == "attn":
        tap(mixer, "out", "groups")
    squares, feed_forward = None, getattr(layer, layer.ffw_block)
    if isinstance(feed_forward, ExpertFeedForward):
        squares = _squares_of_experts(feed_forward, there, shown)
    else:
        tap(feed_forward, "up", "channels")
        tap(feed_forward, "down", "neurons")
    (after, routing, _), shared = apply(layer, carry, place)
    cosine = jnp.sum(_cosine(x, after) * there)
    neurons = _norms(shown["neurons"][0], there) if squares is None else squares()
    if neurons.shape != seen.neurons.shape[1:]:  # of a wider feed-forward, which stays as it is
        neurons = jnp.zeros(seen.neurons.shape[1:])
    channels = sum(_norms(each, there) for each in shown["channels"])
    seen = seen._replace(
        cosine=seen.cosine.at[index].set(cosine),
        neurons=seen.neurons.at[index].set(neurons),
        channels=seen.channels + channels,
    )
    if layer.block == "attn":
        heads = shown["groups"][0]
        heads = heads.reshape(*heads.shape[:2], config.num_kv_heads, -1)
        seen = seen._replace(groups=seen.groups.at[place.row].set(_norms(heads, there)))
    return (after, routing, seen), shared


def has_neurons_of_experts(config: DecoderConfig) -> bool:
    """Whether the feed-forwards are experts', and not only beside some."""
    return config.experts is not None and not config.experts.beside_dense


def _squares_of_experts(
    ffw: Any, there: Array, shown: dict[str, list[Array]]
) -> Callable[[], Array]:
    """Has a feed-forward of experts show its input; what it makes of it is computed from that."""
    router, inputs = ffw.router, []

    def show(x: Array) -> None:
        inputs.append(x)
        shown["channels"].append(x)

    def squares() -> Array:
        ffw.router = router
        return hidden_squares(ffw, inputs[0], there.astype(jnp.int32)).sum(axis=0)

    ffw.router = Tap(router, show)
    return squares


def _norms(x: Float[Array, "B T *part"], there: Array) -> Array:
    """The norm over the rows at each place, and the mean over the places that any row has.

    Over `*part` but its first dimension, too: of [B, T, K, H], a number for each of K.
    """
    wide = jnp.where(there.reshape(*there.shape, *(1,) * (x.ndim - 2)), x.astype(jnp.float32), 0.0)
    squares = jnp.sum(wide * wide, axis=(0, *range(3, x.ndim)))
    places = jnp.sum(jnp.any(there, axis=0))
    return jnp.sum(jnp.sqrt(squares), axis=0) / jnp.maximum(places, 1)


def _cosine(x: Float[Array, "B T D"], y: Float[Array, "B T D"]) -> Float[Array, "B T"]:
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    length = jnp.sqrt(jnp.sum(x * x, -1) * jnp.sum(y * y, -1) + _TINY)
    return jnp.sum(x * y, -1) / length
