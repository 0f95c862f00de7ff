"""Fused attention over whole sequences: splash on TPU, cuDNN on GPU."""

import functools
from collections.abc import Callable
from typing import Literal, cast

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask,
)
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from adakd_jax.models.attention_mask import LayerWindow, Window, attention_mask
from adakd_jax.models.attention_mesh import on_each_device

SPLASH_TILE = 128
SPLASH_BLOCKS = (512, 256, SPLASH_TILE)
# Padding up to a whole tile is a document of its own.
TILE_PADDING = -1


def attention_splash(
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
    """`attention` by the splash kernel; skips the blocks that causality and window exclude.

    A length that is no multiple of 128 is padded to the next. `interpret` runs the kernel on any
    platform, slowly. On the context's mesh, each device computes its own rows and heads.
    """
    run = functools.partial(_splash_on_one, soft_cap=soft_cap, scale=scale, interpret=interpret)
    return on_each_device(run, query, key, value, segments, window)


def _splash_on_one(
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
    length = query.shape[1]
    extra = -length % SPLASH_TILE

    def heads_first(x: Array) -> Array:
        return jnp.swapaxes(jnp.pad(x, ((0, 0), (0, extra), (0, 0), (0, 0))), 1, 2)

    query, key, value = heads_first(query * scale), heads_first(key), heads_first(value)
    padded = jnp.pad(segments, ((0, 0), (0, extra)), constant_values=TILE_PADDING)

    def run(window: int | None) -> Array:
        kernel = _splash_kernel(query.shape[1], query.shape[2], window, soft_cap, interpret)

        def one_row(query: Array, key: Array, value: Array, row: Array) -> Array:
            ids = splash_attention_kernel.SegmentIds(q=row, kv=row)
            return cast(Array, kernel(query, key, value, segment_ids=ids))

        return jax.vmap(one_row)(query, key, value, padded)

    return jnp.swapaxes(_for_window(run, window), 1, 2)[:, :length]


def _splash_kernel(
    heads: int, length: int, window: int | None, soft_cap: float | None, interpret: bool
) -> splash_attention_kernel.SplashAttentionKernel:
    shape = (length, length)
    if window is None:
        mask = splash_attention_mask.CausalMask(shape)
    else:
        mask = splash_attention_mask.LocalMask(shape, (window - 1, 0), offset=0)
    block = next(size for size in SPLASH_BLOCKS if length % size == 0)
    return splash_attention_kernel.make_splash_mha_single_device(
        splash_attention_mask.MultiHeadMask([mask] * heads),
        block_sizes=splash_attention_kernel.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        attn_logits_soft_cap=soft_cap,
        interpret=interpret,
    )


def attention_cudnn(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    *,
    segments: Int[Array, "B T"],
    window: Window,
    soft_cap: float | None,
    scale: float,
    backend: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "B T N H"]:
    """`attention` by cuDNN's flash attention; skips what causality and window exclude.

    Documents go in as a mask [B, 1, T, T]. `backend="xla"` runs the same call on any platform. On
    the context's mesh, each device computes its own rows and heads: the compiler splits the call
    too, but fails where the mesh does not divide the key-value heads.

    Raises:
        ValueError: cuDNN does not support the case.
    """
    obstacle = cudnn_obstacle(query.dtype, query.shape[3], query.shape[1], soft_cap)
    if backend == "cudnn" and obstacle is not None:
        raise ValueError(f"attention implementation 'cudnn': {obstacle}; valid: 'triton', 'xla'")
    run = functools.partial(_cudnn_on_one, scale=scale, backend=backend)
    return on_each_device(run, query, key, value, segments, window)


def _cudnn_on_one(
    query: Array,
    key: Array,
    value: Array,
    segments: Array,
    window: Window,
    *,
    scale: float,
    backend: Literal["cudnn", "xla"],
) -> Array:
    """The call over the rows and heads of one device."""
    mask = attention_mask(segments, segments)[:, None]

    def run(window: int | None) -> Array:
        return jax.nn.dot_product_attention(
            query,
            key,
            value,
            mask=mask,
            scale=scale,
            is_causal=True,
            local_window_size=None if window is None else (window - 1, 0),
            implementation=backend,
        )

    return _for_window(run, window)


def cudnn_obstacle(
    dtype: DTypeLike, head_dim: int, length: int, soft_cap: float | None
) -> str | None:
    """Why cuDNN cannot compute this case, or None if it can."""
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"it computes in bfloat16 or float16, not {jnp.dtype(dtype)}"
    if head_dim % 8 or head_dim > 128:
        return f"head_dim must be a multiple of 8 up to 128, not {head_dim}"
    if length % 2:
        return f"the length must be even, not {length}"
    if soft_cap is not None:
        return "it has no soft cap"
    return None


def _for_window(run: Callable[[int | None], Array], window: Window) -> Array:
    """Kernels are built for a static window: with one per layer, each choice has its branch."""
    if not isinstance(window, LayerWindow):
        return run(window)
    branches = [lambda choice=choice: run(choice) for choice in window.choices]
    return jax.lax.switch(window.index, branches)
