"""Causal attention within documents: one function, four implementations."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from adakd_jax.models.attention_kernels import attention_cudnn, attention_splash, cudnn_obstacle
from adakd_jax.models.attention_mask import Window, attention_mask
from adakd_jax.models.attention_triton import WIDEST_HEAD, attention_triton
from adakd_jax.models.config import AttentionImplementation

# Large enough to vanish in a softmax, small enough not to overflow.
MASKED_SCORE = -1e30
# What fused attention needs of an NVIDIA GPU (Ampere).
FUSED_CAPABILITY = 8.0
# cuDNN takes documents as a mask [B, 1, T, T], 2·T² bytes a row: 8 MiB at this length.
LONGEST_CUDNN = 2048
# On XLA, longer rows are computed in blocks of at most so many queries: no slower on a CPU.
QUERY_BLOCK = 512


def attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    *,
    query_segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    query_offset: Int[Array, ""] | None = None,
    window: Window = None,
    soft_cap: float | None = None,
    scale: float = 1.0,
    sinks: Float[Array, " N"] | None = None,
    implementation: AttentionImplementation | None = None,
) -> Float[Array, "B T N H"]:
    """Grouped-query attention of each position over its own document up to itself.

        softmax_s(cap(scale · q_t · k_s)) · v_s   over s ≤ t, segment_s = segment_t, t − s < window
        cap(x) = soft_cap · tanh(x / soft_cap)

    Args:
        query: N heads; head n reads key-value head n // (N / K).
        key: K heads, S slots. Slot numbers, not positions, say what is past: a document occupies
            consecutive slots.
        value: as key.
        query_segments: document of each query. Padding, document 0, attends to padding: no softmax
            is ever empty, so values and gradients stay finite.
        key_segments: document of each slot.
        query_offset: slot of the first query when decoding with a cache, which always runs on XLA;
            None for a whole sequence, where S = T and both segments are the same.
        window: slots seen, the query's own included, ≥ 1; None for all; `LayerWindow` inside a
            scan over layers.
        soft_cap: bound on |score|, or None.
        scale: factor on q · k, usually H^−½.
        sinks: a score of each head that is in the softmax, and has no value; XLA alone has them.
        implementation: None takes splash on TPU, what `gpu_implementation` says on an NVIDIA GPU,
            and XLA otherwise, by the default backend. Name one when compiling ahead of time for
            another.

    Returns:
        [B, T, N, H] in query's dtype; scores and softmax are float32.

    Raises:
        ValueError: the named implementation does not support the case.
    """
    if query_offset is None:
        fused = {
            "splash": attention_splash,
            "cudnn": attention_cudnn,
            "triton": attention_triton,
        }
        chosen = implementation or ("xla" if sinks is not None else _choose(query, soft_cap))
        if chosen in fused:
            if sinks is not None:
                raise ValueError(f"attention implementation {chosen!r}: no sinks; valid: 'xla'")
            options = dict(window=window, soft_cap=soft_cap, scale=scale)
            return fused[chosen](query, key, value, segments=query_segments, **options)
    run = functools.partial(attention_xla, window=window, soft_cap=soft_cap, scale=scale)
    # The backward pass computes the scores again, as the fused kernels do: kept, they would be the
    # largest of all activations, [L, B, N, T, S].
    run = jax.checkpoint(run, prevent_cse=False)
    return (run if query.shape[1] <= QUERY_BLOCK else functools.partial(_in_blocks, run))(
        query,
        key,
        value,
        sinks=sinks,
        query_segments=query_segments,
        key_segments=key_segments,
        query_offset=0 if query_offset is None else query_offset,
    )


def _in_blocks(
    run: Callable[..., Array],
    query: Array,
    key: Array,
    value: Array,
    *,
    sinks: Array | None,
    query_segments: Array,
    key_segments: Array,
    query_offset: int | Array,
) -> Array:
    """What `run` gives, from blocks of queries one after the other: the scores in memory are
    [B, N, block, S], in the backward pass too.
    """
    length = query.shape[1]
    blocks = -(-length // QUERY_BLOCK)
    block = -(-length // blocks)

    def split(x: Array) -> Array:
        over = ((0, 0), (0, blocks * block - length), *((0, 0),) * (x.ndim - 2))
        parts = jnp.pad(x, over).reshape(len(x), blocks, block, *x.shape[2:])
        return jnp.moveaxis(parts, 1, 0)

    # Their gradients are summed over the blocks, in float32.
    wide_key, wide_value = key.astype(jnp.float32), value.astype(jnp.float32)

    def one(part: tuple[Array, Array, Array]) -> Array:
        index, queries, segments = part
        return run(
            queries,
            wide_key.astype(key.dtype),
            wide_value.astype(value.dtype),
            sinks=sinks,
            query_segments=segments,
            key_segments=key_segments,
            query_offset=query_offset + index * block,
        )

    parts = jax.lax.map(one, (jnp.arange(blocks), split(query), split(query_segments)))
    return jnp.moveaxis(parts, 0, 1).reshape(len(query), -1, *query.shape[2:])[:, :length]


def _choose(query: Array, soft_cap: float | None) -> AttentionImplementation:
    backend = jax.default_backend()
    if backend == "tpu":
        return "splash"
    if backend != "gpu":
        return "xla"
    length, head_dim = query.shape[1], query.shape[3]
    return gpu_implementation(_capability(), query.dtype, head_dim, length, soft_cap)


def gpu_implementation(
    capability: float, dtype: DTypeLike, head_dim: int, length: int, soft_cap: float | None
) -> AttentionImplementation:
    """What computes attention over whole sequences on a GPU.

    cuDNN where it can and its mask of the documents is small; our kernel for longer rows, heads of
    more than 128 numbers, and soft caps; XLA, which makes the scores of a block of queries at a
    time, for float32, heads of more than 256 numbers, and GPUs before Ampere.

    Args:
        capability: NVIDIA's compute capability, such as 9.0; 0 for other GPUs.
        dtype: of the activations.
        head_dim: H.
        length: T.
        soft_cap: bound on |score|, or None.
    """
    if capability < FUSED_CAPABILITY or dtype not in (jnp.bfloat16, jnp.float16):
        return "xla"
    if length <= LONGEST_CUDNN and cudnn_obstacle(dtype, head_dim, length, soft_cap) is None:
        return "cudnn"
    return "triton" if head_dim <= WIDEST_HEAD else "xla"


def for_wide_heads(
    named: AttentionImplementation | None, head_dim: int
) -> AttentionImplementation | None:
    """What computes the attention of a model's wider heads, if `named` does that of the others: no
    fused kernel on a GPU has heads of more than 256 numbers.
    """
    return "xla" if named in ("cudnn", "triton") and head_dim > WIDEST_HEAD else named


@functools.cache
def _capability() -> float:
    device = jax.local_devices()[0]
    is_cuda = "cuda" in device.client.platform_version
    return float(device.compute_capability) if is_cuda else 0.0


def attention_xla(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    *,
    sinks: Float[Array, " N"] | None = None,
    query_segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    query_offset: int | Int[Array, ""],
    window: Window,
    soft_cap: float | None,
    scale: float,
) -> Float[Array, "B T N H"]:
    """The formula as written: makes the scores [B, N, T, S], runs anywhere, supports every case.

    `attention` calls it for blocks of queries where rows are long.
    """
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    # Batch dimensions first: as plain matrix products these run twice as fast on a CPU.
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, head_dim)
    grouped = jnp.transpose(grouped, (0, 2, 3, 1, 4))
    key, value = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)
    scores = jnp.einsum("BKGTH,BKSH->BKGTS", grouped, key, preferred_element_type=jnp.float32)
    scores = scores * scale
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    mask = attention_mask(query_segments, key_segments, query_offset, window)
    scores = jnp.where(mask[:, None, None], scores, MASKED_SCORE)
    weights = _softmax(scores, sinks).astype(query.dtype)
    attended = jnp.einsum("BKGTS,BKSH->BKGTH", weights, value)
    return jnp.transpose(attended, (0, 3, 1, 2, 4)).reshape(query.shape)


def _softmax(
    scores: Float[Array, "B K G T S"], sinks: Float[Array, " N"] | None
) -> Float[Array, "B K G T S"]:
    """Over the slots; with sinks, over one more, which is then left out."""
    if sinks is None:
        return jax.nn.softmax(scores, axis=-1)
    own = sinks.astype(jnp.float32).reshape(1, *scores.shape[1:3], 1, 1)
    largest = jax.lax.stop_gradient(jnp.maximum(scores.max(axis=-1, keepdims=True), own))
    shares = jnp.exp(scores - largest)
    return shares / (shares.sum(axis=-1, keepdims=True) + jnp.exp(own - largest))
