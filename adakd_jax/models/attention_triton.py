"""Flash attention over packed documents on NVIDIA GPUs: a Pallas kernel, compiled by Triton.

A query sees the keys from a first one, where its document or its window begins, up to itself. So
documents and windows of any kind are one number for each query, and no mask [T, T] exists. Blocks
of keys that no query of a block sees are skipped.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float, Int

from adakd_jax.models.attention_mask import Window, window_size
from adakd_jax.models.attention_mesh import on_each_device

HIDDEN_SCORE = -1e30
# Queries and keys of a block; what is loaded of wide heads must fit into shared memory.
BLOCK, WIDE_BLOCK, WIDE_HEAD = 64, 32, 256
NARROWEST_HEAD, WIDEST_HEAD = 16, 256  # of a product on tensor cores; of what was compiled


def attention_triton(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    *,
    segments: Int[Array, "B T"],
    window: Window,
    soft_cap: float | None,
    scale: float,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """`attention` by a kernel of our own, for what cuDNN has no kernel for, or only with a mask.

    Any length, heads of up to 256 numbers, window and soft cap; documents must be contiguous, as
    packed rows have them. Not tuned on a GPU. Memory is
    that of the arguments and results, and two numbers for each query and head. `interpret` runs
    the kernel on any platform, slowly. On the context's mesh, each device computes its own rows
    and heads.
    """
    run = functools.partial(_on_one, soft_cap=soft_cap, scale=scale, interpret=interpret)
    return on_each_device(run, query, key, value, segments, window)


class _How(NamedTuple):
    """What the kernels are compiled for."""

    scale: float
    soft_cap: float | None
    block: int
    interpret: bool


class _Seen(NamedTuple):
    """int32 [B, T] each, both ascending: the first key that a query sees, and the number of the
    query after the last one that sees a key.
    """

    first: Array
    end: Array


def _on_one(
    query: Array,
    key: Array,
    value: Array,
    segments: Array,
    window: Window,
    *,
    soft_cap: float | None,
    scale: float,
    interpret: bool,
) -> Array:
    """The kernel over the rows and heads of one device."""
    length, head_dim = query.shape[1], query.shape[3]
    wide = max(NARROWEST_HEAD, pl.next_power_of_2(head_dim))
    how = _How(scale, soft_cap, WIDE_BLOCK if wide >= WIDE_HEAD else BLOCK, interpret)
    extra = -length % how.block

    def padded(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, extra), (0, 0), (0, wide - head_dim)))

    # Padding up to a whole block is a document of its own.
    documents = jnp.pad(segments, ((0, 0), (0, extra)), constant_values=-1)
    attended = _flash(how, padded(query), padded(key), padded(value), _seen(documents, window))
    return attended[:, :length, :, :head_dim]


def _seen(segments: Int[Array, "B T"], window: Window) -> _Seen:
    """Where documents and windows begin, and where keys go out of sight."""
    places = jnp.broadcast_to(jnp.arange(segments.shape[1], dtype=jnp.int32), segments.shape)
    begins = jnp.diff(segments, axis=1, prepend=segments[:, :1] - 1) != 0
    first = jax.lax.cummax(jnp.where(begins, places, 0), axis=1)
    if window is not None:
        first = jnp.maximum(first, places - window_size(window) + 1)
    end = jax.vmap(functools.partial(jnp.searchsorted, side="right"))(first, places)
    return _Seen(first, end.astype(jnp.int32))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _flash(how: _How, query: Array, key: Array, value: Array, seen: _Seen) -> Array:
    return _forward(how, query, key, value, seen)[0]


def _flash_forward(how: _How, query: Array, key: Array, value: Array, seen: _Seen):
    attended, normalizer = _forward(how, query, key, value, seen)
    return attended, (query, key, value, seen, attended, normalizer)


def _flash_backward(how: _How, kept: tuple[Any, ...], to_attended: Array):
    query, key, value, seen, attended, normalizer = kept
    product = to_attended.astype(jnp.float32) * attended.astype(jnp.float32)
    mean = jnp.swapaxes(product.sum(-1), 1, 2)  # of the gradient of the weights, by query
    operands = (query, key, value, to_attended, normalizer, mean)
    to_query = _query_gradient(how, seen, *operands)
    to_key, to_value = _key_value_gradients(how, seen, *operands)
    return to_query, to_key, to_value, None


_flash.defvjp(_flash_forward, _flash_backward)


def _product(left: Array, right: Array) -> Array:
    return jax.lax.dot(left, right, preferred_element_type=jnp.float32)


def _scores(how: _How, query: Array, key: Array, first: Array, rows: Array, columns: Array):
    """Scores [queries, keys] of a block, hidden ones far below, and the slope of the soft cap."""
    scores = _product(query, key.T) * how.scale
    slope = None
    if how.soft_cap is not None:
        # tanh, which Triton has no instruction for.
        tamed = 1.0 - 2.0 / (jnp.exp(scores * (2.0 / how.soft_cap)) + 1.0)
        scores, slope = how.soft_cap * tamed, 1.0 - tamed * tamed
    seen = (columns[None, :] >= first[:, None]) & (columns[None, :] <= rows[:, None])
    return jnp.where(seen, scores, HIDDEN_SCORE), slope


def _places(block: int, index: Array) -> Array:
    return index * block + jnp.arange(block)


def _by_query(how: _How, query: Array, key: Array) -> tuple[pl.BlockSpec, ...]:
    """What a block of one head's queries is given: of arrays like the queries its own part, all
    that it may see of those like the keys, and its part of numbers [B, N, T] and [B, T].
    """
    length, head_dim = query.shape[1], query.shape[3]
    group, block = query.shape[2] // key.shape[2], how.block
    return (
        pl.BlockSpec((None, block, None, head_dim), lambda b, n, i: (b, i, n, 0)),
        pl.BlockSpec((None, length, None, head_dim), lambda b, n, i: (b, 0, n // group, 0)),
        pl.BlockSpec((None, None, block), lambda b, n, i: (b, n, i)),
        pl.BlockSpec((None, block), lambda b, n, i: (b, i)),
    )


def _forward(how: _How, query: Array, key: Array, value: Array, seen: _Seen):
    """What is attended to [B, T, N, H], and the log-normalizers [B, N, T]."""
    batch, length, heads, head_dim = query.shape
    block = how.block

    def kernel(query_ref, key_ref, value_ref, first_ref, attended_ref, normalizer_ref):
        index = pl.program_id(2)
        rows, first, own = _places(block, index), first_ref[...], query_ref[...]

        def visit(j, carry):
            attended, top, total = carry
            columns = pl.ds(j * block, block)
            scores, _ = _scores(how, own, key_ref[columns, :], first, rows, _places(block, j))
            higher = jnp.maximum(top, scores.max(axis=1))
            weights, shrink = jnp.exp(scores - higher[:, None]), jnp.exp(top - higher)
            added = _product(weights.astype(own.dtype), value_ref[columns, :])
            return attended * shrink[:, None] + added, higher, total * shrink + weights.sum(axis=1)

        nothing = jnp.zeros((block, head_dim), jnp.float32)
        start = nothing, jnp.full((block,), HIDDEN_SCORE), jnp.zeros((block,), jnp.float32)
        attended, top, total = jax.lax.fori_loop(
            jax.lax.div(first_ref[0], block), index + 1, visit, start
        )
        attended_ref[...] = (attended / total[:, None]).astype(attended_ref.dtype)
        normalizer_ref[...] = top + jnp.log(total)

    own, whole, numbers, first = _by_query(how, query, key)
    return pl.pallas_call(
        kernel,
        grid=(batch, heads, length // block),
        in_specs=[own, whole, whole, first],
        out_specs=[own, numbers],
        out_shape=[
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            jax.ShapeDtypeStruct((batch, heads, length), jnp.float32),
        ],
        compiler_params=plgpu.CompilerParams(num_warps=4 if head_dim <= 64 else 8, num_stages=2),
        interpret=how.interpret,
        name="flash_attention",
    )(query, key, value, seen.first)


def _weights_and_their_gradient(how, query, key, value, to_attended, normalizer, mean, hidden):
    """Weights [queries, keys] of a block, and the gradient of the scaled products q · k."""
    scores, slope = _scores(how, query, key, *hidden)
    weights = jnp.exp(scores - normalizer[:, None])
    to_weights = _product(to_attended, value.T)
    to_scores = weights * (to_weights - mean[:, None])
    return weights, to_scores if slope is None else to_scores * slope


def _query_gradient(how, seen, query, key, value, to_attended, normalizer, mean):
    batch, length, heads, head_dim = query.shape
    block = how.block

    def kernel(query_ref, key_ref, value_ref, to_ref, normalizer_ref, mean_ref, first_ref, out_ref):
        index = pl.program_id(2)
        rows, first, own, to_own = (
            _places(block, index),
            first_ref[...],
            query_ref[...],
            to_ref[...],
        )
        normalizer, mean = normalizer_ref[...], mean_ref[...]

        def visit(j, gradient):
            columns = pl.ds(j * block, block)
            key = key_ref[columns, :]
            _, to_scores = _weights_and_their_gradient(
                how, own, key, value_ref[columns, :], to_own, normalizer, mean,
                (first, rows, _places(block, j)),
            )  # fmt: skip
            return gradient + _product(to_scores.astype(key.dtype), key)

        nothing = jnp.zeros((block, head_dim), jnp.float32)
        gradient = jax.lax.fori_loop(jax.lax.div(first_ref[0], block), index + 1, visit, nothing)
        out_ref[...] = (gradient * how.scale).astype(out_ref.dtype)

    own, whole, numbers, first = _by_query(how, query, key)
    return pl.pallas_call(
        kernel,
        grid=(batch, heads, length // block),
        in_specs=[own, whole, whole, own, numbers, numbers, first],
        out_specs=own,
        out_shape=jax.ShapeDtypeStruct(query.shape, query.dtype),
        compiler_params=plgpu.CompilerParams(num_warps=4 if head_dim <= 64 else 8, num_stages=2),
        interpret=how.interpret,
        name="flash_attention_query_gradient",
    )(query, key, value, to_attended, normalizer, mean, seen.first)


def _key_value_gradients(how, seen, query, key, value, to_attended, normalizer, mean):
    """Summed over the queries of every head that reads a key-value head."""
    batch, length, heads, head_dim = query.shape
    kv_heads, block = key.shape[2], how.block
    group = heads // kv_heads

    def kernel(
        query_ref, key_ref, value_ref, to_ref, normalizer_ref, mean_ref, first_ref, end_ref,
        to_key_ref, to_value_ref,
    ):  # fmt: skip
        index = pl.program_id(2)
        columns, key, value = _places(block, index), key_ref[...], value_ref[...]

        def visit(step, carry):
            to_key, to_value = carry
            head, i = jax.lax.rem(step, group), index + jax.lax.div(step, group)
            rows = pl.ds(i * block, block)
            query, to_own = query_ref[rows, head, :], to_ref[rows, head, :]
            weights, to_scores = _weights_and_their_gradient(
                how, query, key, value, to_own, normalizer_ref[head, rows], mean_ref[head, rows],
                (first_ref[rows], _places(block, i), columns),
            )  # fmt: skip
            to_value += _product(weights.astype(to_own.dtype).T, to_own)
            to_key += _product(to_scores.astype(query.dtype).T, query)
            return to_key, to_value

        nothing = jnp.zeros((block, head_dim), jnp.float32)
        blocks = jax.lax.div(end_ref[block - 1] + block - 1, block) - index
        to_key, to_value = jax.lax.fori_loop(0, blocks * group, visit, (nothing, nothing))
        to_key_ref[...] = (to_key * how.scale).astype(to_key_ref.dtype)
        to_value_ref[...] = to_value.astype(to_value_ref.dtype)

    own = pl.BlockSpec((None, block, None, head_dim), lambda b, k, j: (b, j, k, 0))
    grouped = pl.BlockSpec((None, length, group, head_dim), lambda b, k, j: (b, 0, k, 0))
    numbers = pl.BlockSpec((None, group, length), lambda b, k, j: (b, k, 0))
    first = pl.BlockSpec((None, length), lambda b, k, j: (b, 0))
    end = pl.BlockSpec((None, block), lambda b, k, j: (b, j))
    shape = jax.ShapeDtypeStruct(key.shape, key.dtype)
    return pl.pallas_call(
        kernel,
        grid=(batch, kv_heads, length // block),
        in_specs=[grouped, own, own, grouped, numbers, numbers, first, end],
        out_specs=[own, own],
        out_shape=[shape, shape],
        compiler_params=plgpu.CompilerParams(num_warps=4 if head_dim <= 64 else 8, num_stages=2),
        interpret=how.interpret,
        name="flash_attention_key_value_gradients",
    )(query, key, value, to_attended, normalizer, mean, seen.first, seen.end)
