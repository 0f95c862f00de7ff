"""Kernels in eight or four bits: which are, how they are made, and how a layer reads them."""

import dataclasses
import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import qwix
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Bits = Literal["int8", "nf4"]
Params = dict[str, Any]


class Quantization(NamedTuple):
    """How kernels [in, out] are rounded.

    `int8`: to 255 equal steps, one float32 scale for each output. `nf4`: to the 16 quantiles of a
    normal distribution, two values a byte, one float32 scale for each output and `tile` inputs;
    where `tile` does not divide the inputs, for the largest number that divides both.
    """

    kind: Bits
    tile: int = 64


def is_kernel(path: str) -> bool:
    """Whether a parameter, by its dotted path, is one that can be: a kernel of the layers.

    Embeddings and output head stay: looked up and multiplied chunk by chunk, they would have to be
    restored whole for each use, and their rounding reaches the logits undamped. Norms and biases
    are too small to count.
    """
    return path.startswith("layers.") and path.endswith(".kernel")


@functools.partial(jax.jit, static_argnums=1)
def quantize(kernel: Float[Array, "*L D F"], how: Quantization) -> qwix.QArray:
    """Round a kernel, or a stack of them.

    Returns:
        for `int8`, `qvalue` [*L, D, F] and `scale` [*L, 1, F]; for `nf4`, packed `qvalue`
        [*L, D/2, F] and `scale` [*L, D/tile, F].

    Raises:
        ValueError: `nf4` of an odd number of inputs.
    """
    inputs = kernel.ndim - 2
    alone = tuple(axis for axis in range(kernel.ndim) if axis != inputs)
    wide = kernel.astype(jnp.float32)
    if how.kind == "int8":
        return qwix.quantize(wide, jnp.int8, channelwise_axes=alone)
    if kernel.shape[inputs] % 2:
        raise ValueError(
            f"a kernel with {kernel.shape[inputs]} inputs cannot be nf4, which packs pairs of "
            "them; valid: int8"
        )
    tiles = {inputs: math.gcd(how.tile, kernel.shape[inputs])}
    rounded = qwix.quantize(wide, "nf4", channelwise_axes=alone, tiled_axes=tiles)
    return dataclasses.replace(rounded, qvalue=_pack(rounded.qvalue))


def _pack(values: Array) -> Array:
    """Pairs of inputs, [.., D, F] of 0 to 15, in one byte each, [.., D/2, F].

    JAX has a type of four bits, but a CPU keeps it in bytes, and a compiled program on a mesh of
    them refuses it (0.10.2).
    """
    low, high = (values[..., first::2, :].astype(jnp.uint8) for first in (0, 1))
    return low | (high << 4)


def _unpack(pairs: Array) -> Array:
    values = jnp.stack([pairs & 15, pairs >> 4], axis=-2)
    return values.reshape(*pairs.shape[:-2], 2 * pairs.shape[-2], pairs.shape[-1])


def quantize_params(params: Params, how: Quantization) -> Params:
    """The parameters of a decoder with their kernels rounded."""
    flat: dict[Any, Any] = flatten_dict(params)
    rounded = {
        path: quantize(leaf, how) if is_kernel(".".join(path)) else leaf
        for path, leaf in flat.items()
    }
    return unflatten_dict(rounded)


def restored(kernel: Array | qwix.QArray, dtype: DTypeLike) -> Array:
    """A kernel as a layer multiplies by it: in `dtype`, whatever it is stored as.

    Inside the scan over layers this makes one layer's kernel at a time.
    """
    if not isinstance(kernel, qwix.QArray):
        return kernel.astype(dtype)
    if kernel.qtype != "nf4":
        return qwix.dequantize(kernel).astype(dtype)
    # The library flattens the kernel to look its values up, which a mesh would have to gather for.
    levels = jnp.arange(16, dtype=jnp.uint8)
    table = qwix.dequantize(qwix.QArray(levels, jnp.ones((16,)), qtype="nf4"))
    values, scale = table[_unpack(kernel.qvalue)], kernel.scale
    tiled = values.reshape(*scale.shape[:-1], -1, scale.shape[-1]) * scale[..., None, :]
    return tiled.reshape(values.shape).astype(dtype)


def quantization_of(params: Params) -> str | None:
    """What the kernels among some parameters are rounded to, `int8` or `nf4 of 64`; None: not."""
    leaves = jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, qwix.QArray))
    rounded = [leaf for leaf in leaves if isinstance(leaf, qwix.QArray)]
    if not rounded:
        return None
    if rounded[0].qtype != "nf4":
        return "int8"
    return f"nf4 of {max(2 * each.qvalue.shape[-2] // each.scale.shape[-2] for each in rounded)}"
