"""How a decoder makes and runs its stacked layers: scanned, or one by one."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Int

from adakd_jax.models.attention_mask import LayerWindow, Window
from adakd_jax.models.config import DecoderConfig, Mixer
from adakd_jax.models.delta_net import DeltaLayer
from adakd_jax.models.experts import GROUPED
from adakd_jax.models.layer_kinds import Run, layers_with, mixer_rows, mixers_of, runs_of
from adakd_jax.models.layers import Layer
from adakd_jax.models.rope import Rotary, query_scales, rotary_table

_KEEPS = jax.checkpoint_policies
REMAT_POLICIES: dict[str, Callable[..., Any]] = {
    "full": _KEEPS.nothing_saveable,
    "dots": _KEEPS.save_from_both_policies(
        _KEEPS.dots_with_no_batch_dims_saveable, _KEEPS.save_only_these_names(GROUPED)
    ),
}
_LAYERS: Mapping[Mixer, type[Layer]] = {"attn": Layer, "delta": DeltaLayer}
Apply = Callable[..., Any]


class LayerPlace(NamedTuple):
    """What a layer is told besides its parameters: its number, its row among the layers of its
    mixer, window, rotations, key of dropout.
    """

    index: Array | int
    row: Array | int
    window: Window
    rotary: Rotary | None
    dropout_key: Array | None


class _Bare(Layer):
    """A layer without its mixer."""

    block = None


def stacked_layers(config: DecoderConfig, *, rngs: nnx.Rngs, dtype: DTypeLike) -> Layer:
    """All layers in one, whose parameters are stacked as `layer_kinds` says."""

    def stack(count: int, make: Callable[..., Any]) -> Any:
        made = nnx.vmap(lambda own: make(config, rngs=own, dtype=dtype))
        return nnx.split_rngs(splits=count)(made)(rngs)

    kinds = tuple(dict.fromkeys(mixers_of(config)))
    layers = stack(config.num_layers, _LAYERS[kinds[0]] if len(kinds) == 1 else _Bare)
    if len(kinds) > 1:
        for mixer in kinds:
            block = stack(len(layers_with(config, mixer)), _LAYERS[mixer].make_mixer)
            setattr(layers, mixer, block)
    return layers


def scan_layers(
    config: DecoderConfig,
    layers: Layer,
    apply: Apply,
    carry: Any,
    positions: Int[Array, "B T"],
    dropout_key: Array | None = None,
    collect: bool = False,
    length: int | None = None,
) -> tuple[Any, Any]:
    """Run `apply(layer, carry, place) -> carry` over the stacked layers, each run of them compiled
    once.

    `length` is that of the rows, where they are not whole: see `rotary_table`.

    Returns:
        the last carry, and all of them, stacked, if they are to be collected.
    """
    stacked, mixers = nnx.to_pure_dict(nnx.split(layers)[1]), mixers_of(config)
    step = _step(config, apply, positions, dropout_key, length)
    outs = []
    for run in runs_of(mixers):
        kinds = mixers[run.start : run.start + run.period]
        own = step
        if config.remat != "none":
            policy = REMAT_POLICIES[config.remat]
            # Inside a loop, nothing can be merged with what its backward pass computes again.
            apart = run.repeats == 1
            own = jax.checkpoint(step, policy=policy, prevent_cse=apart, static_argnums=1)
        body = functools.partial(_period, own, kinds, collect)
        xs = _in_run(config, stacked, run), _columns(config, run)
        carry, after = jax.lax.scan(body, carry, xs)
        outs.append(_interleaved(after) if collect else None)
    if not collect or len(outs) == 1:
        return carry, outs[0]
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), *outs)


def _step(
    config: DecoderConfig,
    apply: Apply,
    positions: Array,
    dropout_key: Array | None,
    length: int | None,
) -> Callable[..., Any]:
    """From carry, kind of layer, and its parameters and numbers to the next carry."""
    graphdefs, rotary_of = _graphdefs(config), _rotations(config, positions, length)

    def step(carry: Any, kind: Mixer, xs: tuple[Any, ...]) -> Any:
        params, index, window, rope, *row = xs
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
        row = row[0] if row else index
        place = LayerPlace(index, row, _window(config, window), rotary_of(rope), key)
        return apply(nnx.merge(graphdefs[kind], params), carry, place)

    return step


def _period(
    step: Callable[..., Any], kinds: Sequence[Mixer], collect: bool, carry: Any, xs: Any
) -> tuple[Any, Any]:
    """The layers of one period, and what the carry was after each."""
    blocks, columns = xs
    after = []
    for place, kind in enumerate(kinds):
        carry = step(carry, kind, (_of_place(kinds, blocks, place), *columns[place]))
        after.append(carry)
    return carry, after if collect else None


def each_layer(
    config: DecoderConfig,
    apply: Apply,
    carry: Any,
    positions: Int[Array, "B T"],
    views: Sequence[Any],
    length: int,
) -> Any:
    """Run `apply(layer, carry, place) -> carry` over layers whose parameters are the `views`."""
    graphdefs, mixers, rows = _graphdefs(config), mixers_of(config), mixer_rows(config)
    rotary_of = _rotations(config, positions, length)
    for index, (params, rope) in enumerate(zip(views, _ropes(config), strict=True)):
        place = LayerPlace(index, rows[index], config.windows[index], rotary_of(rope), None)
        carry = apply(nnx.merge(graphdefs[mixers[index]], params), carry, place)
    return carry


def _graphdefs(config: DecoderConfig) -> dict[Mixer, nnx.GraphDef]:
    """The structure of a single layer of each kind."""

    def of(kind: type[Layer]) -> nnx.GraphDef:
        layer = nnx.eval_shape(lambda: kind(config, rngs=nnx.Rngs(0), dtype=jnp.float32))
        return nnx.split(layer)[0]

    return {mixer: of(_LAYERS[mixer]) for mixer in dict.fromkeys(mixers_of(config))}


def _in_run(config: DecoderConfig, stacked: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """The parameters of a run, [repeats, …], or [repeats, count, …] where a period has several."""
    found = {}
    for name, tree in stacked.items():
        rows = layers_with(config, name)
        first = sum(row < run.start for row in rows)
        count = sum(run.start <= row < run.start + run.period for row in rows)
        if not count:
            continue
        size = count * run.repeats

        def part(leaf: Any, first: int = first, count: int = count, size: int = size) -> Any:
            leaf = leaf if size == len(leaf) else leaf[first : first + size]
            return leaf if count == 1 else leaf.reshape(-1, count, *leaf.shape[1:])

        found[name] = jax.tree.map(part, tree)
    return found


def _of_place(kinds: Sequence[Mixer], blocks: Mapping[str, Any], place: int) -> dict[str, Any]:
    """The parameters of one layer of a period."""
    found = {}
    for name, tree in blocks.items():
        having = [n for n, kind in enumerate(kinds) if name not in _LAYERS or name == kind]
        if place in having:
            row = having.index(place)
            found[name] = (
                tree if len(having) == 1 else jax.tree.map(lambda x, row=row: x[row], tree)
            )
    return found


def _columns(config: DecoderConfig, run: Run) -> list[tuple[np.ndarray, ...]]:
    """Number, window, rope and, where kinds differ, row of the layers at each place of a period."""
    windows = [config.window_choices.index(window) for window in config.windows]
    numbers = [range(config.num_layers), windows, _ropes(config)]
    if len(set(mixers_of(config))) > 1:
        numbers.append(mixer_rows(config))
    columns = np.array(numbers, np.int32)[:, run.start :]
    columns = columns[:, : run.period * run.repeats]
    return [tuple(columns[:, place :: run.period]) for place in range(run.period)]


def _interleaved(after: list[Any]) -> Any:
    """What the places of a period gave, [repeats, …] each, in the order of the layers."""
    if len(after) == 1:
        return after[0]
    return jax.tree.map(lambda *parts: jnp.stack(parts, 1).reshape(-1, *parts[0].shape[1:]), *after)


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
