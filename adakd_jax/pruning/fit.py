"""The products behind what was left out, fitted in closed form to what they gave before."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from adakd_jax.axes import TokenBatch, replicated
from adakd_jax.data.progress import track
from adakd_jax.eval.likelihood import divided
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.layer_kinds import layers_with
from adakd_jax.models.layers import Layer
from adakd_jax.models.quantized import restored
from adakd_jax.models.stack import LayerPlace
from adakd_jax.pruning.choice import Choice
from adakd_jax.pruning.cut import expanded
from adakd_jax.pruning.observe import Tap, has_neurons_of_experts

# Of the mean square of what goes in: how strongly the kernel is held where it was.
RIDGE = 1e-2
# Of the sums of all layers that are in memory at once; more layers are summed in further passes.
_BYTES_AT_ONCE = 2**30


class _Product(NamedTuple):
    """A product of a layer, such as `ffw.down`, and which of its inputs are kept [rows, n], of the
    layers `layers`.
    """

    owner: str
    name: str
    layers: tuple[int, ...]
    kept: Int[np.ndarray, "rows n"]


def fitted_kernels(
    model: Pretrained, batches: Sequence[TokenBatch], choice: Choice
) -> dict[str, Float[np.ndarray, "rows n D"]]:
    """Kernels with which the kept neurons and heads write, as nearly as can be, what all of them
    wrote.

    Of each product y = h · W it is the W' with the least

        Σ |h_kept · W' − h · W|² + λ |W' − W_kept|²   over the tokens,

    λ a hundredth of the mean square of the kept h, times the number of tokens.

    Args:
        model: the whole model, without adapters. No second copy of it is made.
        batches: NumPy arrays [B, T] of one shape.
        choice: what is kept. Experts are not fitted.

    Returns:
        by the path of a parameter that `cut` gives, such as `layers.ffw.down.kernel`: float32.
    """
    products = _products(model.config, choice)
    batches = [divided(batch) for batch in batches]
    return {
        f"layers.{product.owner}.{product.name}.kernel": _fitted(model, batches, product, choice)
        for product in products
    }


def _products(config: DecoderConfig, choice: Choice) -> Iterator[_Product]:
    if choice.neurons is not None and not has_neurons_of_experts(config):
        yield _Product("ffw", "down", choice.layers, choice.neurons)
    if choice.groups is not None:
        attn = layers_with(config, "attn")
        layers = tuple(layer for layer in choice.layers if layer in attn)
        size = config.num_heads // config.num_kv_heads * config.head_dim
        yield _Product("attn", "out", layers, expanded(choice.groups, size))


def _fitted(
    model: Pretrained, batches: Sequence[TokenBatch], product: _Product, choice: Choice
) -> Float[np.ndarray, "rows n D"]:
    rows, count = product.kept.shape
    width = model.config.embed_dim
    at_once = max(1, _BYTES_AT_ONCE // (4 * count * (count + width)))
    found = []
    for start in range(0, rows, at_once):
        part = product._replace(
            layers=product.layers[start : start + at_once],
            kept=product.kept[start : start + at_once],
        )
        size = len(part.layers)
        sizes = (size, count, count), (size, count, width)
        sums = _Sums(*(np.zeros(each, np.float32) for each in sizes))
        what = f"fitting {product.owner}.{product.name} of layers {start + 1} to {start + size}"
        slots = np.full(model.config.num_layers, -1, np.int32)
        slots[list(part.layers)] = np.arange(size)
        for batch in track(batches, what, len(batches)):
            sums = _summed(
                model.graphdef,
                (product.owner, product.name),
                model.params,
                batch,
                slots,
                part.kept,
                sums,
            )
        found += _solved(model, part, sums)
    kernels = np.stack(found)
    return kernels if choice.channels is None else kernels[..., choice.channels]


class _Sums(NamedTuple):
    """Σ hᵀ · h [rows, n, n] and Σ hᵀ · y [rows, n, D] over tokens, of the kept h."""

    inputs: Any
    outputs: Any


@functools.partial(jax.jit, static_argnames=("graphdef", "names"), donate_argnames="sums")
def _summed(
    graphdef: nnx.GraphDef,
    names: tuple[str, str],
    params: Any,
    batch: TokenBatch,
    slots: Int[Array, " L"],
    kept: Int[Array, "rows n"],
    sums: _Sums,
) -> _Sums:
    """The sums with those of a batch; `slots` says which row is each layer's, −1 for none."""
    around = functools.partial(_around, names, batch.segments > 0, slots, kept)
    model = nnx.merge(graphdef, params)
    found = model.forward(batch.tokens, batch.positions, batch.segments, around=around, kept=sums)
    return jax.tree.map(replicated, found.kept)


def _around(
    names: tuple[str, str],
    there: Array,
    slots: Array,
    kept: Array,
    apply: Callable[..., Any],
    layer: Layer,
    carry: Any,
    place: LayerPlace,
) -> Any:
    owner, shown = getattr(layer, names[0], None), []
    if owner is None:  # a layer with another mixer
        return apply(layer, carry, place)
    product = getattr(owner, names[1])
    setattr(owner, names[1], Tap(product, shown.append))
    (x, routing, sums), shared = apply(layer, carry, place)
    slot = slots[place.index]

    def add(sums: _Sums) -> _Sums:
        h = jnp.where(there[..., None], shown[0], 0)
        y = h @ restored(product.kernel[...], h.dtype)
        h, y = (each.reshape(-1, each.shape[-1]).astype(jnp.float32) for each in (h, y))
        h = h[:, kept[slot]]
        return _Sums(sums.inputs.at[slot].add(h.T @ h), sums.outputs.at[slot].add(h.T @ y))

    return (x, routing, jax.lax.cond(slot >= 0, add, lambda sums: sums, sums)), shared


def _solved(model: Pretrained, part: _Product, sums: _Sums) -> list[np.ndarray]:
    """The kernel of each row, solved in float64."""
    stacked = model.params["layers"][part.owner][part.name]["kernel"]
    rows = layers_with(model.config, part.owner)
    places = np.array([rows.index(layer) for layer in part.layers], np.int32)
    found = []
    for row in zip(_kept_rows(stacked, places, part.kept), *sums, strict=True):
        before, inputs, outputs = (np.asarray(each, np.float64) for each in row)
        ridge = RIDGE * np.trace(inputs) / len(inputs) + np.finfo(np.float32).tiny
        held = inputs + ridge * np.eye(len(inputs))
        found.append(np.linalg.solve(held, outputs + ridge * before).astype(np.float32))
    return found


@jax.jit
def _kept_rows(stacked: Array, places: Array, kept: Array) -> Array:
    """What is kept of the kernels of some layers, on every device."""
    return replicated(jax.vmap(lambda kernel, rows: kernel[rows])(stacked[places], kept))
