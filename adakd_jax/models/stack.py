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
from adakd_jax.models.layer_kinds import Run, has_block, layers_with, mixer_rows, mixers_of, runs_of
from adakd_jax.models.layers import Layer, ReaderLayer, WideLayer, WideReaderLayer
from adakd_jax.models.reading import Shared
from adakd_jax.models.rope import Rotary, query_scales, rotary_table

_KEEPS = jax.checkpoint_policies
REMAT_POLICIES: dict[str, Callable[..., Any]] = {
    "full": _KEEPS.nothing_saveable,
    "dots": _KEEPS.save_from_both_policies(
        _KEEPS.dots_with_no_batch_dims_saveable, _KEEPS.save_only_these_names(GROUPED)
    ),
}
_LAYERS: Mapping[Mixer, type[Layer]] = {
    "attn": Layer,
    "delta": DeltaLayer,
    "wide": WideLayer,
    "reader": ReaderLayer,
    "wide_reader": WideReaderLayer,
}
Apply = Callable[..., Any]


class LayerPlace(NamedTuple):
    """What a layer is told besides its parameters: its number, its row among the layers of its
    mixer, window, rotations, key of dropout, inputs of its own, keys and values of earlier layers
    that are read.
    """

    index: Array | int
    row: Array | int
    window: Window
    rotary: Rotary | None
    dropout_key: Array | None
    inputs: Array | None
    shared: Shared


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
        if config.reader_ffw_dim is not None:
            for name in ("ffw", "reader_ffw"):
                make = functools.partial(Layer.make_feed_forward, block=name)
                setattr(layers, name, stack(len(layers_with(config, name)), make))
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
    inputs: Array | None = None,
    shared: Shared | None = None,
) -> tuple[Any, Any]:
    """Run `apply(layer, carry, place) -> carry, keys and values` over the stacked layers, each run
    of them compiled once.

    `length` is that of the rows, where they are not whole: see `rotary_table`. `inputs` [L, …] are
    those that each layer has of its own, `shared` stands in for the keys and values that later
    layers read, before there are any; layers that are not read give {}.

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
            own = jax.checkpoint(step, policy=policy, prevent_cse=apart, static_argnums=2)
        body = functools.partial(_period, config, own, kinds, collect)
        xs = _in_run(config, stacked, run), _columns(config, run), _inputs_of(inputs, run)
        (carry, shared), after = jax.lax.scan(body, (carry, shared or {}), xs)
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
    """From carry, what is shared, kind of layer, and its parameters, numbers and inputs to the next
    carry and what it makes of that which is shared.
    """
    graphdefs, rotary_of = _graphdefs(config), _rotations(config, positions, length)

    def step(carry: Any, shared: Shared, kind: Mixer, xs: tuple[Any, ...]) -> Any:
        params, inputs, index, window, rope, *row = xs
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
        row = row[0] if row else index
        seen, rotary = _window(config, kind, window), rotary_of(kind, rope)
        place = LayerPlace(index, row, seen, rotary, key, inputs, shared)
        return apply(nnx.merge(graphdefs[kind], params), carry, place)

    return step


def _period(
    config: DecoderConfig,
    step: Callable[..., Any],
    kinds: Sequence[Mixer],
    collect: bool,
    state: tuple[Any, Shared],
    xs: Any,
) -> tuple[Any, Any]:
    """The layers of one period, and what the carry was after each."""
    (carry, shared), (blocks, columns, inputs) = state, xs
    after = []
    for place, kind in enumerate(kinds):
        params = _of_place(config, kinds, blocks, place)
        own = None if inputs is None else inputs[place]
        carry, made = step(carry, shared, kind, (params, own, *columns[place]))
        # What no layer of the loop makes is no state of it.
        shared = shared | made
        after.append(carry)
    return (carry, shared), after if collect else None


def each_layer(
    config: DecoderConfig,
    apply: Apply,
    carry: Any,
    positions: Int[Array, "B T"],
    views: Sequence[Any],
    length: int,
    inputs: Array | None = None,
) -> Any:
    """Run `apply(layer, carry, place) -> carry, {}` over layers with the `views` for parameters."""
    graphdefs, mixers, rows = _graphdefs(config), mixers_of(config), mixer_rows(config)
    rotary_of = _rotations(config, positions, length)
    for index, (params, rope) in enumerate(zip(views, _ropes(config), strict=True)):
        kind, own = mixers[index], None if inputs is None else inputs[index]
        rotary = rotary_of(kind, rope)
        place = LayerPlace(index, rows[index], config.windows[index], rotary, None, own, {})
        carry, _ = apply(nnx.merge(graphdefs[kind], params), carry, place)
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


def _inputs_of(inputs: Array | None, run: Run) -> Array | None:
    """Those of a run, [repeats, period, …]."""
    if inputs is None:
        return None
    own = inputs[run.start : run.start + run.period * run.repeats]
    return own.reshape(run.repeats, run.period, *own.shape[1:])


def _of_place(
    config: DecoderConfig, kinds: Sequence[Mixer], blocks: Mapping[str, Any], place: int
) -> dict[str, Any]:
    """The parameters of one layer of a period."""
    found = {}
    for name, tree in blocks.items():
        having = [n for n, kind in enumerate(kinds) if has_block(config, kind, name)]
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
) -> Callable[[Mixer, Array | int], Rotary | None]:
    """From a kind of layer and the number of a rope to its rotations of all positions."""
    if not config.ropes:
        return lambda kind, rope: None
    cos, sin = rotary_table(config.ropes, config.rotary_dim or config.head_dim, positions, length)
    scale = config.query_scale and query_scales(config.query_scale, positions)
    wide = None
    if config.wide is not None:
        (wide_cos,), (wide_sin,) = rotary_table(
            (config.wide.rope,), config.wide.head_dim, positions, length
        )
        wide = Rotary(wide_cos, wide_sin, scale)

    def rotary_of(kind: Mixer, rope: Array | int) -> Rotary:
        if wide is not None and kind in ("wide", "wide_reader"):
            return wide
        return Rotary(cos[rope], sin[rope], scale)

    return rotary_of


def _ropes(config: DecoderConfig) -> tuple[int, ...]:
    return config.layer_ropes or (0,) * config.num_layers


def _window(config: DecoderConfig, kind: Mixer, index: Array) -> Window:
    choices, mixers = config.window_choices, mixers_of(config)
    own = {config.windows[n] for n, mixer in enumerate(mixers) if mixer == kind}
    return own.pop() if len(own) == 1 else LayerWindow(choices, index)
