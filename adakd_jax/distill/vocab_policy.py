"""What the chunked loss decides about tokens beside those of all devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from adakd_jax.distill.policy import Assignment, Survey, assign, scores_decide, scores_of
from adakd_jax.distill.signals import Signals
from adakd_jax.distill.vocab_logits import Layout


def assign_globally(
    layout: Layout, seen: Survey | None, mask: Array, signals: Signals
) -> Assignment:
    """Rank the tokens of all devices, if anything depends on a rank; return this device's."""
    config = layout.config
    if seen is None and not scores_decide(config):
        return assign(config, None, None, mask, signals)
    statistics, entropy = jnp.zeros((mask.size, 0), jnp.float32), None
    if seen is not None:
        statistics, entropy = seen.statistics, seen.teacher_entropy
    decide = functools.partial(_assign_in_rows, layout, signals)
    return _globally(layout, decide, statistics, entropy, mask)


def _assign_in_rows(
    layout: Layout, signals: Signals, statistics: Array, entropy: Array | None, mask: Array
) -> Assignment:
    """`assign` of flat tokens, as rows if it matters which one a token is in."""
    decide = functools.partial(assign, layout.config, signals=signals)
    if layout.row_length is None:
        return decide(statistics, entropy, mask)
    rows = (-1, layout.row_length)
    given = statistics.reshape(*rows, statistics.shape[-1]), entropy, mask.reshape(rows)
    if entropy is not None:
        given = given[0], entropy.reshape(rows), given[2]
    return jax.tree.map(lambda x: x.reshape(-1), decide(*given))


def pulled_to_statistics(
    layout: Layout, seen: Survey, mask: Array, slopes: Array, signals: Signals
) -> Array:
    """Gradient with respect to the statistics [n, S] of this device's tokens, given that with
    respect to their temperatures, `slopes` [n]: through the median those of all tokens move it.
    """

    def pull(statistics: Array, entropy: Array | None, mask: Array, slopes: Array) -> Array:
        def temperatures(statistics: Array) -> Array:
            return _assign_in_rows(layout, signals, statistics, entropy, mask).temperature

        return jax.vjp(temperatures, statistics)[1](slopes)[0]

    return _globally(layout, pull, seen.statistics, seen.teacher_entropy, mask, slopes)


def scores_globally(layout: Layout, statistics: Array, mask: Array, signals: Signals) -> Array:
    """What the tokens of this device score beside those of all."""
    if not layout.config.has_kd:  # 0
        return scores_of(layout.config, statistics, mask, signals)
    decide = functools.partial(scores_of, layout.config, signals=signals)
    return _globally(layout, decide, statistics, mask)


def _globally(layout: Layout, decide: Callable[..., Any], *by_token: Array | None) -> Any:
    """What `decide` says, given the tokens of all devices, of this device's."""
    axes = layout.batch_axes
    if not axes:
        return decide(*by_token)
    decided = decide(*jax.lax.all_gather(by_token, axes, tiled=True))
    count = jax.tree.leaves(by_token)[0].shape[0]
    first = jax.lax.axis_index(axes) * count
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, count), decided)
