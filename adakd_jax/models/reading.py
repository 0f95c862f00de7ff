"""Keys and values that one layer makes and later ones read (Gemma 3n and 4)."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from adakd_jax.models.config import SOURCES, DecoderConfig, Mixer
from adakd_jax.models.layer_kinds import heads_of, mixers_of

# By the mixer of the layer that made them last.
Shared = dict[Mixer, tuple[Array, Array]]


def sources_of(config: DecoderConfig) -> tuple[Mixer, ...]:
    """The mixers whose keys and values other layers read."""
    return tuple(dict.fromkeys(SOURCES[kind] for kind in mixers_of(config) if kind in SOURCES))


def source_row(config: DecoderConfig, source: Mixer) -> int:
    """Which layer of that mixer is read, of those in order: the last one."""
    return mixers_of(config).count(source) - 1


def nothing_shared(config: DecoderConfig, size: tuple[int, ...], dtype: DTypeLike) -> Shared:
    """What stands in for keys and values of [B, T] tokens before there are any; {} where no layer
    reads them.
    """
    shared: Shared = {}
    for source in sources_of(config):
        head_dim, kv_heads = heads_of(config, source)
        none = jnp.zeros((*size, kv_heads, head_dim), dtype)
        shared[source] = none, none
    return shared


def attended(
    mixer: Mixer, own: tuple[Array, Array] | None, shared: Shared
) -> tuple[tuple[Array, Array], Shared]:
    """Keys and values that a layer attends to, and what it leaves for later ones.

    Args:
        mixer: of the layer.
        own: what the layer makes, None if it reads.
        shared: what there is so far, of every mixer that is read.
    """
    if own is None:
        return shared[SOURCES[mixer]], {}
    return own, {mixer: own} if mixer in shared else {}
