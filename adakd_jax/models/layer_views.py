"""The parameters of single layers, in the memory of the stacked ones."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.layer_kinds import one_layer


def layer_views(config: DecoderConfig, stacked: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Each layer's parameters as arrays of their own, without a copy of what is large.

    A scan over stacked layers copies a layer's weights out of the stack before it multiplies with
    them. That is nothing beside a training step, but as much traffic again in decoding, where every
    weight is read once for each token. A CPU's arrays can be looked at in parts.

    Args:
        config: of the model.
        stacked: `params["layers"]`, a tree of arrays [L, …], or fewer than L, see `layer_kinds`;
            they must outlive the views unchanged: not be donated.

    Returns:
        a tree of arrays […] for each layer, or None where views would be copies: on devices other
        than one CPU, and inside of `jit`.
    """
    leaves = jax.tree.leaves(stacked)
    if not all(_on_one_cpu(leaf) for leaf in leaves):
        return None
    # From the shard, as an array keeps the NumPy array once made of it, and a kept one forbids
    # to donate it later.
    host = jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), stacked)
    return tuple(
        one_layer(config, host, layer, lambda leaf, row: jax.device_put(leaf[row]))
        for layer in range(config.num_layers)
    )


def _on_one_cpu(leaf: Any) -> bool:
    if isinstance(leaf, Tracer) or not isinstance(leaf, jax.Array):
        return False
    devices = leaf.sharding.device_set
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"
