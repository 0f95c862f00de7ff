"""The routers of a student with experts: their load-balancing loss, and what they report."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adakd_jax.axes import taken_row_axes
from adakd_jax.models.experts import Routing

ROUTER = "router"


class RouterReport(NamedTuple):
    """What the routers did in a micro-batch, on all devices.

    `balance` [] is the load-balancing loss times the micro-batch's share of the step's tokens, so
    that a step's is the sum; `chosen` [L, E] counts the tokens of each expert, `entropy` [] is the
    sum over layers and tokens, in nats.
    """

    balance: Array
    chosen: Array
    entropy: Array


def router_report(routing: Routing, active: int, step_tokens: Array) -> RouterReport:
    """Of a micro-batch.

    Args:
        routing: what the student's routers did, [L, …].
        active: experts of a token.
        step_tokens: [], those of the whole step, padding not counted.

    Returns:
        with a gradient in `balance` alone. Inside a `shard_map` over rows, it is that of the rows
        there: the caller adds them up.
    """
    # All devices' sums, each with the gradient of its own rows.
    axes = taken_row_axes()
    summed = jax.tree.map(lambda own: _all_of(own, axes), routing)
    share = summed.chosen[0].sum() / active / jnp.maximum(step_tokens, 1)
    return RouterReport(
        share * balance_loss(summed, active),
        jax.lax.stop_gradient(summed.chosen),
        jax.lax.stop_gradient(summed.entropy.sum()),
    )


def balance_loss(routing: Routing, active: int) -> Float[Array, ""]:
    """E · Σ_e f_e · P_e: f_e the choices of expert e a token, P_e its mean probability, both over
    all layers and tokens.

    Args:
        routing: of all layers, [L, …].
        active: experts of a token; the loss where all are chosen alike.

    Returns:
        0 without tokens.

    References:
        Fedus et al., arXiv 2101.03961, eqs. 4-6, as transformers computes it: layers are averaged
        before the product.
    """
    chosen = jax.lax.stop_gradient(routing.chosen.sum(axis=0))
    rows = jnp.maximum(chosen.sum() / active, 1.0)  # tokens times layers
    return len(chosen) * jnp.sum(chosen / rows * routing.probability.sum(axis=0) / rows)


def _all_of(own: Array, axes: tuple[str, ...]) -> Array:
    if not axes:
        return own
    others = jax.lax.stop_gradient(jax.lax.psum(own, axes) - own)
    return own + others


def router_metrics(report: RouterReport, tokens: Array) -> dict[str, Array]:
    """Of a step.

    Args:
        report: those of its micro-batches, stacked on axis 0.
        tokens: [], of the step, padding not counted.

    Returns:
        `balance_loss`; `most_loaded_expert` and `least_loaded_expert`, the share of the tokens that
        the expert of any layer with the most and with the fewest of them has; `router_entropy`, the
        mean over layers and tokens of that of the probabilities, in nats.
    """
    chosen = report.chosen.sum(axis=0)
    tokens = jnp.maximum(tokens, 1)
    return {
        "balance_loss": report.balance.sum(),
        "most_loaded_expert": chosen.max() / tokens,
        "least_loaded_expert": chosen.min() / tokens,
        "router_entropy": report.entropy.sum() / (len(chosen) * tokens),
    }


def without_router_gradients(params: Any) -> Any:
    """The parameters, the routers' as constants."""

    def one(path: tuple[Any, ...], leaf: Array) -> Array:
        return jax.lax.stop_gradient(leaf) if is_of_router(path) else leaf

    return jax.tree_util.tree_map_with_path(one, params)


def is_of_router(path: tuple[Any, ...]) -> bool:
    """Whether a parameter, by its path in a tree of them, is a router's."""
    return any(getattr(key, "key", None) == ROUTER for key in path)
