"""The parameters of single layers, in the memory of the stacked ones."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer


def layer_views(stacked: Any) -> tuple[Any, ...] | None:
    """Each layer's parameters as arrays of their own, without a copy of what is large.

    A scan over stacked layers copies a layer's weights out of the stack before it multiplies with
    them. That is nothing beside a training step, but as much traffic again in decoding, where every
    weight is read once for each token. A CPU's arrays can be looked at in parts.

    Args:
        stacked: a tree of arrays [L, …]; they must outlive the views unchanged: not be donated.

    Returns:
        L trees of arrays […], or None where views would be copies: on devices other than one CPU,
        and inside of `jit`.
    """
    leaves = jax.tree.leaves(stacked)
    if not all(_on_one_cpu(leaf) for leaf in leaves):
        return None
    # From the shard, as an array keeps the NumPy array once made of it, and a kept one forbids
    # to donate it later.
    host = jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), stacked)
    return tuple(
        jax.tree.map(lambda leaf, layer=layer: jax.device_put(leaf[layer]), host)
        for layer in range(leaves[0].shape[0])
    )


def _on_one_cpu(leaf: Any) -> bool:
    if isinstance(leaf, Tracer) or not isinstance(leaf, jax.Array):
        return False
    devices = leaf.sharding.device_set
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"
