"""How a decoder runs its stacked layers: scanned, or one by one."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Int

from adakd_jax.models.attention_mask import LayerWindow, Window
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.experts import GROUPED
from adakd_jax.models.layers import Layer
from adakd_jax.models.rope import Rotary, query_scales, rotary_table

_KEEPS = jax.checkpoint_policies
REMAT_POLICIES: dict[str, Callable[..., Any]] = {
    "full": _KEEPS.nothing_saveable,
    "dots": _KEEPS.save_from_both_policies(
        _KEEPS.dots_with_no_batch_dims_saveable, _KEEPS.save_only_these_names(GROUPED)
    ),
}


class LayerPlace(NamedTuple):
    """What a layer is told besides its parameters: number, window, rotations, key of dropout."""

    index: Array | int
    window: Window
    rotary: Rotary | None
    dropout_key: Array | None


def scan_layers(
    config: DecoderConfig,
    layers: Layer,
    apply: Callable[..., Any],
    carry: Any,
    positions: Int[Array, "B T"],
    dropout_key: Array | None = None,
    collect: bool = False,
    length: int | None = None,
) -> tuple[Any, Any]:
    """Run `apply(layer, carry, place) -> carry` over the stacked layers, compiled once.

    `length` is that of the rows, where they are not whole: see `rotary_table`.

    Returns:
        the last carry, and all of them, stacked, if they are to be collected.
    """
    graphdef, stacked = nnx.split(layers)
    rotary_of = _rotations(config, positions, length)

    def body(carry: Any, xs: tuple[Any, ...]) -> tuple[Any, Any]:
        params, index, window, rope = xs
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
        place = LayerPlace(index, _window(config, window), rotary_of(rope), key)
        carry = apply(nnx.merge(graphdef, params), carry, place)
        return carry, carry if collect else None

    if config.remat != "none":
        body = jax.checkpoint(body, policy=REMAT_POLICIES[config.remat], prevent_cse=False)
    windows = [config.window_choices.index(window) for window in config.windows]
    columns = np.array([range(config.num_layers), windows, _ropes(config)], np.int32)
    return jax.lax.scan(body, carry, (stacked, *columns))


def each_layer(
    config: DecoderConfig,
    layers: Layer,
    apply: Callable[..., Any],
    carry: Any,
    positions: Int[Array, "B T"],
    views: Sequence[Any],
    length: int,
) -> Any:
    """Run `apply(layer, carry, place) -> carry` over layers whose parameters are the `views`."""
    graphdef, _ = nnx.split(layers)
    rotary_of = _rotations(config, positions, length)
    for index, (params, rope) in enumerate(zip(views, _ropes(config), strict=True)):
        place = LayerPlace(index, config.windows[index], rotary_of(rope), None)
        carry = apply(nnx.merge(graphdef, params), carry, place)
    return carry


def _rotations(
    config: DecoderConfig, positions: Int[Array, "B T"], length: int | None
) -> Callable[[Array | int], Rotary | None]:
    """From the number of a rope to its rotations of all positions."""
    if not config.ropes:
        return lambda rope: None
    cos, sin = rotary_table(config.ropes, config.rotary_dim or config.head_dim, positions, length)
    scale = config.query_scale and query_scales(config.query_scale, positions)
    return lambda rope: Rotary(cos[rope], sin[rope], scale)


def _ropes(config: DecoderConfig) -> tuple[int, ...]:
    return config.layer_ropes or (0,) * config.num_layers


def _window(config: DecoderConfig, index: Array) -> Window:
    choices = config.window_choices
    return choices[0] if len(choices) == 1 else LayerWindow(choices, index)
