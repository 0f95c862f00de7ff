"""Who may look at whom: the one definition of the mask, as data for XLA and cuDNN."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

UNLIMITED = 2**30


class LayerWindow(NamedTuple):
    """One of a few static windows, picked per layer by a traced index in the scan over layers."""

    choices: tuple[int | None, ...]
    index: Array


Window = int | None | LayerWindow


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
        visible &= distance < window_size(window)
    return (query_segments[:, :, None] == key_segments[:, None, :]) & visible[None]


def window_size(window: int | LayerWindow) -> int | Array:
    """Slots that a query sees, its own included; of a layer without a window, more than exist."""
    if isinstance(window, LayerWindow):
        sizes = [UNLIMITED if choice is None else choice for choice in window.choices]
        return jnp.asarray(sizes, jnp.int32)[window.index]
    return window
