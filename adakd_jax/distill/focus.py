"""Slot 2: which tokens count, and how much."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from adakd_jax.axes import PerToken, TokenMask
from adakd_jax.config.distill import DistillConfig, Latf, TopRatio
from adakd_jax.distill.registry import choose
from adakd_jax.distill.signals import Signals


class FocusRule(NamedTuple):
    """A weighting of the response tokens of one global micro-batch.

    Attributes:
        weights: (its config, scores [...], mask [...], signals) → w [...] ≥ 0, 0 where masked.
        total: (its config, mask [...], signals) → Σ w, without knowing the scores.
    """

    weights: Callable[[Any, Array, Array, Signals], Array]
    total: Callable[[Any, Array, Signals], Array]


def kept_count(tokens: Int[Array, ""], ratio: ArrayLike) -> Int[Array, ""]:
    """Number of tokens to keep: max(1, floor(r·n)), 0 for n = 0; float32 .9 of 10 is 9."""
    exact = jnp.asarray(ratio, jnp.float32) * tokens.astype(jnp.float32)
    count = jnp.floor(exact + 1e-4).astype(tokens.dtype)
    return jnp.minimum(jnp.maximum(count, 1), tokens)


def select_top_ratio(scores: PerToken, mask: TokenMask, ratio: ArrayLike) -> Bool[Array, "*tokens"]:
    """Keep the k = max(1, floor(r·n)) highest scores of n tokens, ties to the lower flat index.

    Args:
        scores: [...], any shape; NaN counts as the highest score, so that it cannot hide.
        mask: [...], the n tokens that compete.
        ratio: r in (0, 1]; may be traced, its change never recompiles.

    Returns:
        bool [...], exactly k tokens (none for n = 0).

    Scope: all tokens given, which must be the global micro-batch. No gradient.

    References:
        AdaKD (arXiv 2510.11615) eq. 4.

    Deviations from the released code: ties go by position; floor has a tolerance of 1e-4.
    """
    scores = jax.lax.stop_gradient(jnp.where(jnp.isnan(scores), jnp.inf, scores))
    count = kept_count(mask.sum(dtype=jnp.int32), ratio)
    ascending = jnp.sort(jnp.where(mask, scores, -jnp.inf).reshape(-1))
    threshold = ascending[jnp.minimum(mask.size - count, mask.size - 1)]
    above = mask & (scores > threshold)
    tied = mask & (scores == threshold)
    tie_rank = jnp.cumsum(tied.reshape(-1), dtype=jnp.int32).reshape(mask.shape)
    return above | (tied & (tie_rank <= count - above.sum(dtype=jnp.int32)))


def _keep_all(config: Any, scores: PerToken, mask: TokenMask, signals: Signals) -> PerToken:
    return mask.astype(scores.dtype)


def _count_all(config: Any, mask: TokenMask, signals: Signals) -> Float[Array, ""]:
    return mask.sum(dtype=jnp.float32)


def _keep_hardest(ratio: Callable[[Any, Signals], ArrayLike]) -> FocusRule:
    """Weight 1 on the hardest share `ratio(config, signals)` of tokens, 0 on the rest."""

    def weights(config: Any, scores: PerToken, mask: TokenMask, signals: Signals) -> PerToken:
        return select_top_ratio(scores, mask, ratio(config, signals)).astype(scores.dtype)

    def total(config: Any, mask: TokenMask, signals: Signals) -> Float[Array, ""]:
        count = kept_count(mask.sum(dtype=jnp.int32), ratio(config, signals))
        return count.astype(jnp.float32)

    return FocusRule(weights, total)


def _fixed_ratio(config: TopRatio, signals: Signals) -> float:
    return config.ratio


def _controlled_ratio(config: Latf, signals: Signals) -> Array:
    return signals.keep_ratio


FOCI: Mapping[str, FocusRule] = {
    "all": FocusRule(_keep_all, _count_all),
    "top_ratio": _keep_hardest(_fixed_ratio),
    "latf": _keep_hardest(_controlled_ratio),
}


def _rule(config: DistillConfig) -> FocusRule:
    # Uniform scores rank nothing: a share of them would be the first tokens of the batch.
    if config.score.kind == "uniform":
        return FOCI["all"]
    return choose(FOCI, "focus", config.focus.kind)


def keeps_every_token(config: DistillConfig) -> bool:
    """Whether each response token has weight 1 whatever its score."""
    return _rule(config) is FOCI["all"]


def token_weights(
    config: DistillConfig, scores: PerToken, mask: TokenMask, signals: Signals
) -> PerToken:
    """Weight w of each token in L_KD; 0 for a token that is not kept. No gradient.

    Scope: all tokens given, which must be the global micro-batch.
    """
    weights = _rule(config).weights(config.focus, scores, mask, signals)
    return jax.lax.stop_gradient(weights)


def weight_total(config: DistillConfig, mask: TokenMask, signals: Signals) -> Float[Array, ""]:
    """Σ w of one global micro-batch, float32; it follows from the mask and the ratio alone."""
    return _rule(config).total(config.focus, mask, signals)
