"""The parameters of a pruned model, out of those of the whole."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.layer_kinds import keep_layers
from adakd_jax.models.parameter_axes import parameter_axes
from adakd_jax.pruning.choice import Choice


def cut(config: DecoderConfig, params: Mapping[str, Any], choice: Choice) -> dict[str, Any]:
    """Takes what is kept of every parameter along each of its axes.

    Args:
        config: of the whole model.
        params: its parameters, without adapters.
        choice: what is kept.
    """
    picked = keep_layers(config, params, choice.layers)

    def of(path: tuple[Any, ...], leaf: Array) -> Array:
        name = ".".join(key.key for key in path)
        for axis, logical in enumerate(parameter_axes(name)):
            kept = _kept(config, choice, name, logical)
            if kept is not None:
                leaf = _taken(leaf, kept, axis)
        return leaf

    return jax.tree_util.tree_map_with_path(of, picked)


def _kept(config: DecoderConfig, choice: Choice, name: str, axis: str) -> np.ndarray | None:
    """Numbers along an axis: the same for all, or a row for each layer, or each expert of one."""
    if axis == "embed":
        # That table is split as embeddings are, but its columns are inputs of layers.
        return None if name == "per_layer.embedding" else choice.channels
    if axis == "ffw" and name.startswith("layers.ffw."):
        return choice.neurons
    if axis in ("experts", "scores") and name.startswith("layers.ffw."):
        return choice.experts
    if choice.groups is None or not name.startswith("layers.attn."):
        return None
    per_group = config.num_heads // config.num_kv_heads
    if name == "layers.attn.sinks":
        return expanded(choice.groups, per_group)
    if axis == "heads" or (_is_wide_norm(config, axis) and name == "layers.attn.query_norm.scale"):
        return expanded(choice.groups, per_group * config.head_dim)
    if axis == "kv_heads" or _is_wide_norm(config, axis):
        return expanded(choice.groups, config.head_dim)
    return None


def _is_wide_norm(config: DecoderConfig, axis: str) -> bool:
    return axis == "head_dim" and config.qk_norm == "width"


def expanded(groups: np.ndarray, size: int) -> np.ndarray:
    """From numbers of groups to those of what is in them, `size` each, group after group."""
    inside = groups[..., None] * size + np.arange(size)
    return inside.reshape(*groups.shape[:-1], -1)


def _taken(leaf: Array, kept: np.ndarray, axis: int) -> Array:
    """Along `axis`, for each of the leading dimensions that `kept` has, by its own row."""
    lead = kept.ndim - 1

    def take(part: Array, numbers: Array) -> Array:
        return jnp.take(part, numbers, axis=axis - lead)

    for _ in range(lead):
        take = jax.vmap(take)
    return take(leaf, jnp.asarray(kept))
