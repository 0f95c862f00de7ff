"""What a train step reports: scalars computed inside the jitted step from the loss's per-token
report.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from adakd_jax.axes import TokenBatch
from adakd_jax.distill import LossReport

QUANTILES = {"q10": 0.1, "q50": 0.5, "q90": 0.9}


def step_metrics(
    batch: TokenBatch, loss: Array, report: LossReport, ratio: Array
) -> dict[str, Array]:
    """Reduce a step's report to scalars.

    Args:
        batch: [A, B, T].
        loss: [], the loss that was differentiated.
        report: the micro-batches' reports, stacked on axis 0.
        ratio: [], share of response tokens that was asked for.

    Returns:
        float32 []: `loss`, `kd_loss` and `ce_loss` (nats per token), `forward_kl` and `reverse_kl`
        at τ = 1 over response tokens, `monitored_loss` (what LATF sees), `keep_ratio`, quantiles of
        `score` over response tokens and of `temperature` over kept ones (NaN if there are none),
        counts `tokens` (padding not counted), `response_tokens`, `selected_tokens`, and
        `response_share`.
    """
    responses = report.response_tokens.sum()
    tokens = (batch.segments > 0).sum()
    metrics = {
        "loss": loss,
        "kd_loss": report.kd.sum(),
        "ce_loss": report.ce.sum(),
        "forward_kl": report.forward_kl_sum.sum() / jnp.maximum(responses, 1),
        "reverse_kl": report.reverse_kl_sum.sum() / jnp.maximum(responses, 1),
        "monitored_loss": report.monitored_sum.sum()
        / jnp.maximum(report.monitored_tokens.sum(), 1),
        "keep_ratio": ratio,
        "tokens": tokens,
        "response_tokens": responses,
        "selected_tokens": report.selected_tokens.sum(),
        "response_share": responses / jnp.maximum(tokens, 1),
    }
    for name, values, mask in (
        ("score", report.scores, report.response),
        ("temperature", report.temperature, report.selected),
    ):
        found = masked_quantiles(values, mask, tuple(QUANTILES.values()))
        metrics |= {f"{name}_{label}": found[i] for i, label in enumerate(QUANTILES)}
    return {key: jnp.asarray(value, jnp.float32) for key, value in metrics.items()}


def masked_quantiles(
    values: Float[Array, "..."], mask: Bool[Array, "..."], quantiles: tuple[float, ...]
) -> Float[Array, " Q"]:
    """Quantiles (nearest rank below) of the values under the mask; NaN if the mask is empty."""
    ordered = jnp.sort(jnp.where(mask, values, jnp.inf).ravel())
    count = mask.sum()
    ranks = jnp.floor(jnp.asarray(quantiles) * (count - 1)).astype(jnp.int32)
    return jnp.where(count > 0, ordered[jnp.maximum(ranks, 0)], jnp.nan)
