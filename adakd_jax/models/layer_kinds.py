"""Which layers have which parameters, where layers are of several kinds.

All that layers have in common is stacked over all of them; a mixer is stacked over those that have
it. So `layers.ffw.up.kernel` is [L, …] and `layers.delta.out.kernel` [layers with a delta net, …].
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import jax
import numpy as np

from adakd_jax.models.config import DecoderConfig, Mixer

MIXERS: tuple[Mixer, ...] = get_args(Mixer)


class Run(NamedTuple):
    """Consecutive layers from number `start` on: a period of kinds, and how often it repeats."""

    start: int
    period: int
    repeats: int


def mixers_of(config: DecoderConfig) -> tuple[Mixer, ...]:
    """The mixer of each layer."""
    return config.mixers or ("attn",) * config.num_layers


def layers_with(config: DecoderConfig, block: str) -> tuple[int, ...]:
    """Numbers of the layers that have a part of that name, such as `attn` or `ffw_norm`: row i of
    its parameters is the i-th of them.
    """
    mixers = mixers_of(config)
    return tuple(
        layer for layer, mixer in enumerate(mixers) if block not in MIXERS or block == mixer
    )


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
