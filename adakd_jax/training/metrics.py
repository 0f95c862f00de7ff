"""What a train step reports: scalars computed inside the jitted step from the loss's per-token
report.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from adakd_jax.axes import TokenBatch
from adakd_jax.config import DistillConfig, Latf
from adakd_jax.distill import LossReport, select_top_ratio

QUANTILES = {"q10": 0.1, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q90": 0.9}
# Share of the kept tokens that are called hard, or easy.
_EXTREME = 0.25


def step_metrics(
    config: DistillConfig, batch: TokenBatch, loss: Array, report: LossReport, ratio: Array
) -> dict[str, Array]:
    """Reduce a step's report to scalars.

    Args:
        config: the loss; what it has no part for is left out.
        batch: [A, B, T].
        loss: [], the loss that was differentiated.
        report: the micro-batches' reports, stacked on axis 0.
        ratio: [], share of response tokens that LATF asked for.

    Returns:
        float32 []: `loss`, `kd_loss` and `ce_loss` (nats per token), `feature_loss`, `forward_kl`
        and `reverse_kl` at τ = 1 over response tokens, `monitored_loss` (what LATF sees),
        `keep_ratio` (LATF's, else the share that was kept), quantiles of `score` over response
        tokens and of `temperature` over kept ones (NaN if there are none), the mean norm of the
        gradients of the hardest and the easiest quarter of the kept tokens if each token's was
        measured, `gradient_norm_hard` and `gradient_norm_easy`, counts `tokens` (padding
        not counted), `response_tokens`, `selected_tokens`, and `response_share`.
    """
    responses = report.response_tokens.sum()
    tokens = (batch.segments > 0).sum()
    metrics = {
        "loss": loss,
        "ce_loss": report.ce.sum(),
        "monitored_loss": report.monitored_sum.sum()
        / jnp.maximum(report.monitored_tokens.sum(), 1),
        "tokens": tokens,
        "response_tokens": responses,
        "response_share": responses / jnp.maximum(tokens, 1),
    }
    if config.has_teacher:
        metrics["forward_kl"] = report.forward_kl_sum.sum() / jnp.maximum(responses, 1)
        metrics["reverse_kl"] = report.reverse_kl_sum.sum() / jnp.maximum(responses, 1)
    if config.has_features:
        metrics["feature_loss"] = report.feature.sum()
    if config.has_kd:
        metrics |= _policy_metrics(config, report, ratio)
    return {key: jnp.asarray(value, jnp.float32) for key, value in metrics.items()}


def _policy_metrics(config: DistillConfig, report: LossReport, ratio: Array) -> dict[str, Array]:
    """What the token policy did."""
    selected, responses = report.selected_tokens.sum(), report.response_tokens.sum()
    kept = ratio if isinstance(config.focus, Latf) else selected / jnp.maximum(responses, 1)
    metrics = {"kd_loss": report.kd.sum(), "selected_tokens": selected, "keep_ratio": kept}
    for name, values, mask in (
        ("score", report.scores, report.response),
        ("temperature", report.temperature, report.selected),
    ):
        found = masked_quantiles(values, mask, tuple(QUANTILES.values()))
        metrics |= {f"{name}_{label}": found[i] for i, label in enumerate(QUANTILES)}
    if report.gradient_norms is not None and config.score.kind != "uniform":
        for name, scores in (("hard", report.scores), ("easy", -report.scores)):
            chosen = select_top_ratio(scores, report.selected, _EXTREME)
            total = jnp.where(chosen, report.gradient_norms, 0.0).sum()
            metrics[f"gradient_norm_{name}"] = total / jnp.maximum(chosen.sum(), 1)
    return metrics


def masked_quantiles(
    values: Float[Array, "..."], mask: Bool[Array, "..."], quantiles: tuple[float, ...]
) -> Float[Array, " Q"]:
    """Quantiles (nearest rank below) of the values under the mask; NaN if the mask is empty."""
    ordered = jnp.sort(jnp.where(mask, values, jnp.inf).ravel())
    count = mask.sum()
    ranks = jnp.floor(jnp.asarray(quantiles) * (count - 1)).astype(jnp.int32)
    return jnp.where(count > 0, ordered[jnp.maximum(ranks, 0)], jnp.nan)
