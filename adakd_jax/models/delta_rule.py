"""The gated delta rule within documents, in chunks, and the short convolution before it.

References: Yang et al., arXiv 2406.06484 (the chunks) and 2412.06464 (the gate).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

CHUNK = 64
_einsum = functools.partial(jnp.einsum, precision="highest")
_matmul = functools.partial(jnp.matmul, precision="highest")


def causal_convolution(
    x: Float[Array, "B T F"],
    taps: Float[Array, "W F"],
    segments: Int[Array, "B T"],
    before: Float[Array, "B W-1 F"],
) -> Float[Array, "B T F"]:
    """Each channel's last W values of its own document, weighted: y_t = Σ_i taps_i · x_(t−W+1+i).

    Args:
        x: values.
        taps: weights, the last one that of a token itself.
        segments: document of each token, consecutive.
        before: what came before x in the document of its first token; zeros for nothing.
    """
    length, width = x.shape[1], len(taps)
    x = jnp.concatenate([before.astype(x.dtype), x], axis=1)
    first = jnp.broadcast_to(segments[:, :1], (len(segments), width - 1))
    whole = jnp.concatenate([first, segments], axis=1)
    total = jnp.zeros((x.shape[0], length, x.shape[2]), x.dtype)
    for tap in range(width):
        own = whole[:, tap : tap + length] == segments
        seen = jnp.where(own[..., None], x[:, tap : tap + length], 0)
        total = total + seen * taps[tap].astype(x.dtype)[None, None]
    return total


def gated_delta_rule(
    query: Float[Array, "B T K D"],
    key: Float[Array, "B T K D"],
    value: Float[Array, "B T K G E"],
    log_decay: Float[Array, "B T K G"],
    write: Float[Array, "B T K G"],
    segments: Int[Array, "B T"],
    state: Float[Array, "B K G D E"],
    chunk: int = CHUNK,
) -> tuple[Float[Array, "B T K G E"], Float[Array, "B K G D E"]]:
    """Reads of a memory S that every token decays and corrects; each document begins with S = 0.

        S ← exp(g_t)·S;  S ← S + k_t ⊗ w_t·(v_t − Sᵀk_t);  y_t = Sᵀq_t

    Args:
        query: q of K heads.
        key: k.
        value: v of G value heads to each key head.
        log_decay: g ≤ 0.
        write: w in [0, 1]. A token with g = w = 0 leaves no trace.
        segments: document of each token, consecutive.
        state: S before the first token, in its document.
        chunk: tokens that are computed at once, by products of matrices; a power of 2.

    Returns:
        y, and S after the last token; all in float32.
    """
    enough = 1 << (query.shape[1] - 1).bit_length()
    run = functools.partial(_chunked, chunk=min(chunk, enough))
    # The backward pass computes the chunks again: kept, they would be the largest activations.
    numbers = (x.astype(jnp.float32) for x in (query, key, value, log_decay, write))
    return jax.checkpoint(run, prevent_cse=False)(*numbers, segments, state.astype(jnp.float32))


def _chunked(
    query: Array,
    key: Array,
    value: Array,
    log_decay: Array,
    write: Array,
    segments: Array,
    state: Array,
    *,
    chunk: int,
) -> tuple[Array, Array]:
    length = query.shape[1]
    query, key, value, log_decay, write = (
        _in_chunks(x, chunk, "constant") for x in (query, key, value, log_decay, write)
    )
    # What fills the last chunk belongs to the last document, and leaves no trace in its state.
    segments = _in_chunks(segments, chunk, "edge")
    carried = jnp.concatenate([segments[:, :1, 0], segments[:, :-1, -1]], axis=1)
    goes_on = segments == carried[..., None]
    reaches_end = segments == segments[..., -1:]
    together = jnp.tril(segments[..., :, None] == segments[..., None, :])

    write = jnp.moveaxis(write, 2, -1)
    total = jnp.cumsum(jnp.moveaxis(log_decay, 2, -1), axis=-1)  # [B, N, K, G, C]
    between = _decay(total[..., :, None] - total[..., None, :], together[:, :, None, None])
    since_start = _decay(total, goes_on[:, :, None, None])
    until_end = _decay(total[..., -1:] - total, reaches_end[:, :, None, None])

    # Corrections depend on those before them in the chunk: (1 + A)·corrections = right.
    overlap = _einsum("BNCKD,BNSKD->BNKCS", key, key)[:, :, :, None]
    lower = write[..., None] * between * overlap
    values = jnp.moveaxis(value, 2, -2) * write[..., None]
    keys = jnp.swapaxes(key, 2, 3)[:, :, :, None]  # [B, N, K, 1, C, D]
    right = jnp.concatenate([values, keys * (write * since_start)[..., None]], axis=-1)
    solved = _matmul(_inverse(lower), right)
    corrections, reads = jnp.split(solved, [value.shape[-1]], axis=-1)
    inside = _einsum("BNCKD,BNSKD->BNKCS", query, key)[:, :, :, None] * between
    kept = since_start[..., -1]
    parts = (query, key, inside, corrections, reads, since_start, until_end, kept)
    state, out = jax.lax.scan(_one_chunk, state, tuple(jnp.moveaxis(x, 1, 0) for x in parts))
    out = jnp.moveaxis(out, (0, 4), (1, 2))
    return out.reshape(out.shape[0], -1, *out.shape[3:])[:, :length], state


def _one_chunk(state: Array, parts: tuple[Array, ...]) -> tuple[Array, Array]:
    query, key, inside, corrections, reads, since_start, until_end, kept = parts
    corrected = corrections - _einsum("BKGCD,BKGDE->BKGCE", reads, state)
    out = _einsum("BCKD,BKGDE->BKGCE", query, state) * since_start[..., None]
    out = out + _einsum("BKGCS,BKGSE->BKGCE", inside, corrected)
    added = _einsum("BCKD,BKGCE->BKGDE", key, corrected * until_end[..., None])
    return state * kept[..., None, None] + added, out


def _inverse(lower: Array) -> Array:
    """(1 + A)⁻¹ of what is below the diagonals [.., C, C], C a power of 2.

    Inverts blocks on the diagonal, two of which and what is between them make one of twice the
    size: [[a, 0], [d, b]]⁻¹ = [[a⁻¹, 0], [−b⁻¹·d·a⁻¹, b⁻¹]]. As exact as substitution, in products
    of matrices: LAPACK's solver for many small systems takes a hundred times as long on a CPU.
    """
    *lead, chunk, _ = lower.shape
    inverse, size = jnp.ones((*lead, chunk, 1, 1), lower.dtype), 1
    while size < chunk:
        count = chunk // size // 2
        blocks = lower.reshape(*lead, count, 2 * size, count, 2 * size)
        own = jnp.moveaxis(jnp.diagonal(blocks, axis1=-4, axis2=-2), -1, -3)
        pairs = inverse.reshape(*lead, count, 2, size, size)
        first, second = pairs[..., 0, :, :], pairs[..., 1, :, :]
        below = -_matmul(_matmul(second, own[..., size:, :size]), first)
        upper = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
        inverse = jnp.concatenate([upper, jnp.concatenate([below, second], axis=-1)], axis=-2)
        size *= 2
    return inverse[..., 0, :, :]


def _decay(log: Array, there: Array) -> Array:
    return jnp.exp(jnp.where(there, log, -jnp.inf))


def _in_chunks(x: Array, chunk: int, fill: Any) -> Array:
    """[B, T, …] → [B, N, chunk, …]."""
    missing = -x.shape[1] % chunk
    x = jnp.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2)), mode=fill)
    return x.reshape(x.shape[0], -1, chunk, *x.shape[2:])
