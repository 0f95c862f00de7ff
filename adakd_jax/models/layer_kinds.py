"""Which layers have which parameters, where layers are of several kinds.

All that layers have in common is stacked over all of them; what only some have, such as a mixer, is
stacked over those. So `layers.ffw.up.kernel` is [L, …] and `layers.delta.out.kernel` [layers with a
delta net, …].
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import jax
import numpy as np

from adakd_jax.models.config import SOURCES, DecoderConfig, Mixer

MIXERS: tuple[Mixer, ...] = get_args(Mixer)


class Run(NamedTuple):
    """Consecutive layers from number `start` on: a period of kinds, and how often it repeats."""

    start: int
    period: int
    repeats: int


def mixers_of(config: DecoderConfig) -> tuple[Mixer, ...]:
    """The mixer of each layer."""
    return config.mixers or ("attn",) * config.num_layers


def has_block(config: DecoderConfig, mixer: Mixer, block: str) -> bool:
    """Whether layers with that mixer have a part of that name, such as `attn` or `ffw_norm`."""
    if block in MIXERS:
        return block == mixer
    if block == "reader_ffw":
        return mixer in SOURCES
    return block != "ffw" or config.reader_ffw_dim is None or mixer not in SOURCES


def layers_with(config: DecoderConfig, block: str) -> tuple[int, ...]:
    """Numbers of the layers that have a part of that name: row i of its parameters is the i-th of
    them.
    """
    mixers = mixers_of(config)
    return tuple(layer for layer, mixer in enumerate(mixers) if has_block(config, mixer, block))


def heads_of(config: DecoderConfig, mixer: Mixer) -> tuple[int, int]:
    """Numbers of a head, and heads of keys, of layers that have attention."""
    if mixer in ("wide", "wide_reader"):
        assert config.wide is not None
        return config.wide.head_dim, config.wide.num_kv_heads
    return config.head_dim, config.num_kv_heads


def mixer_rows(config: DecoderConfig) -> tuple[int, ...]:
    """The row of each layer among those of its mixer."""
    mixers = mixers_of(config)
    return tuple(mixers[:layer].count(mixer) for layer, mixer in enumerate(mixers))


def pick_layers(
    config: DecoderConfig, stacked: Mapping[str, Any], layers: Sequence[int]
) -> dict[str, Any]:
    """The rows of some layers, in a tree of parameters that are stacked over layers.

    Of a mixer that none of them has, nothing is left.
    """
    rows = {name: layers_with(config, name) for name in stacked}
    own = {
        name: np.array([having.index(n) for n in layers if n in having], np.int32)
        for name, having in rows.items()
    }
    return {
        name: jax.tree.map(lambda leaf, own=own[name]: leaf[own], tree)
        for name, tree in stacked.items()
        if len(own[name])
    }


def keep_layers(
    config: DecoderConfig, params: Mapping[str, Any], layers: Sequence[int]
) -> dict[str, Any]:
    """The parameters of a decoder that keeps some layers."""
    kept = dict(params) | {"layers": pick_layers(config, params["layers"], layers)}
    if config.per_layer is not None:
        dim = config.per_layer.dim
        columns = np.concatenate([np.arange(dim) + layer * dim for layer in layers])
        own = params["per_layer"]
        project = own["project"] | {"kernel": own["project"]["kernel"][:, columns]}
        kept["per_layer"] = own | {"embedding": own["embedding"][:, columns], "project": project}
    return kept


def one_layer(
    config: DecoderConfig, stacked: Mapping[str, Any], layer: int, take: Callable[[Any, int], Any]
) -> dict[str, Any]:
    """One layer's part of a tree of parameters that are stacked over layers: `take(leaf, row)` of
    every leaf.
    """
    found = {}
    for name, tree in stacked.items():
        rows = layers_with(config, name)
        if layer in rows:
            row = rows.index(layer)
            found[name] = jax.tree.map(lambda leaf, row=row: take(leaf, row), tree)
    return found


def runs_of(kinds: Sequence[Any]) -> tuple[Run, ...]:
    """Divides layers into repeated periods, so that as few layers as possible have to be compiled.

    `aaabaaabaa` is two of `a` and two of `abaa`.
    """

    @functools.cache
    def best(start: int) -> tuple[int, tuple[Run, ...]]:
        if start == len(kinds):
            return 0, ()
        options = []
        for period in range(1, len(kinds) - start + 1):
            repeats = 1
            while True:
                end = start + repeats * period
                compiled, rest = best(end)
                options.append((period + compiled, (Run(start, period, repeats), *rest)))
                if kinds[start : start + period] != kinds[end : end + period]:
                    break
                repeats += 1
        return min(options, key=lambda option: (option[0], len(option[1])))

    return best(0)[1]
