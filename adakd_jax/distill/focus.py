"""Slot 2: which tokens count, and how much."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from adakd_jax.axes import PerToken, TokenMask
from adakd_jax.config.distill import (
    CosineRatio,
    Curriculum,
    DistillConfig,
    Latf,
    LinearRatio,
    RandomTokens,
    TopRatio,
)
from adakd_jax.distill.order_statistics import kth_smallest
from adakd_jax.distill.registry import choose
from adakd_jax.distill.schedule import moving
from adakd_jax.distill.signals import Difficulty, Signals


class FocusRule(NamedTuple):
    """A weighting of the response tokens of one global micro-batch.

    Attributes:
        weights: (its config, difficulty, mask [...], signals) → w [...] ≥ 0, 0 where masked.
        total: (its config, mask [...], signals) → Σ w, without knowing the difficulty.
        ranks: whether the scores decide who is kept.
    """

    weights: Callable[[Any, Difficulty, Array, Signals], Array]
    total: Callable[[Any, Array, Signals], Array]
    ranks: bool = False


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
    competing = jnp.where(mask, scores, -jnp.inf).reshape(-1)
    threshold = kth_smallest(competing, jnp.minimum(mask.size - count, mask.size - 1))
    above = mask & (scores > threshold)
    tied = mask & (scores == threshold)
    tie_rank = jnp.cumsum(tied.reshape(-1), dtype=jnp.int32).reshape(mask.shape)
    return above | (tied & (tie_rank <= count - above.sum(dtype=jnp.int32)))


def entropy_ranks(values: PerToken, mask: TokenMask) -> PerToken:
    """Rank u = rank/(n−1) ∈ [0, 1] of each value among the n that count, ties by index; 0 where
    masked and for n = 1. EGAD's measure of a teacher's entropy, as we define it.

    Scope: all tokens given, which must be the global micro-batch. No gradient.
    """
    flat = jnp.where(mask, jax.lax.stop_gradient(values), jnp.inf).reshape(-1)
    places = jnp.arange(flat.size, dtype=jnp.int32)
    ranks = jnp.zeros_like(places).at[jnp.argsort(flat, stable=True)].set(places)
    return jnp.where(mask, rank_share(ranks, mask).reshape(mask.shape), 0.0).astype(values.dtype)


def rank_share(ranks: Int[Array, "..."], mask: TokenMask) -> Float[Array, "..."]:
    """rank/(n−1), float32; 0 for n = 1."""
    last = jnp.maximum(mask.sum(dtype=jnp.int32) - 1, 1)
    return ranks.astype(jnp.float32) / last.astype(jnp.float32)


def is_review(config: DistillConfig, signals: Signals) -> Bool[Array, ""] | bool:
    """Whether this step uses all tokens (`review_ratio`): as the signals say, else drawn."""
    return _is_review(config.focus, signals) if config.has_kd else False


def _is_review(config: Any, signals: Signals) -> Bool[Array, ""] | bool:
    chance = getattr(config, "review_ratio", 0.0)
    if chance == 0.0:
        return False
    if signals.review is not None:
        return signals.review
    return jax.random.uniform(_key(signals, "review_ratio", 1)) < chance


def _key(signals: Signals, what: str, purpose: int) -> Array:
    if signals.rng is None:
        raise ValueError(f"focus {what}: needs a random key in Signals.rng")
    return jax.random.fold_in(signals.rng, purpose)


def _keep_all(config: Any, difficulty: Difficulty, mask: TokenMask, signals: Signals) -> PerToken:
    return mask.astype(difficulty.scores.dtype)


def _count_all(config: Any, mask: TokenMask, signals: Signals) -> Float[Array, ""]:
    return mask.sum(dtype=jnp.float32)


def _by_score(config: Any, difficulty: Difficulty, signals: Signals) -> PerToken:
    return difficulty.scores


def _by_chance(config: Any, difficulty: Difficulty, signals: Signals) -> PerToken:
    scores = difficulty.scores
    drawn = jax.random.uniform(_key(signals, "random", 2), (scores.size,), scores.dtype)
    return drawn.reshape(scores.shape)


def _keep_share(ratio: Callable[[Any, Signals], ArrayLike], order: Any = _by_score) -> FocusRule:
    """Weight 1 on the share `ratio(config, signals)` of tokens that is first in `order`, 0 on the
    rest; 1 on all in a review.
    """

    def weights(config: Any, difficulty: Difficulty, mask: TokenMask, signals: Signals) -> PerToken:
        ranked = order(config, difficulty, signals)
        kept = select_top_ratio(ranked, mask, ratio(config, signals))
        kept = kept | (mask & _is_review(config, signals))
        return kept.astype(difficulty.scores.dtype)

    def total(config: Any, mask: TokenMask, signals: Signals) -> Float[Array, ""]:
        tokens = mask.sum(dtype=jnp.int32)
        count = kept_count(tokens, ratio(config, signals))
        return jnp.where(_is_review(config, signals), tokens, count).astype(jnp.float32)

    return FocusRule(weights, total, ranks=order is _by_score)


def _fixed_ratio(config: TopRatio | RandomTokens, signals: Signals) -> float:
    return config.ratio


def _controlled_ratio(config: Latf, signals: Signals) -> Array:
    return signals.keep_ratio


def _linear_ratio(config: LinearRatio, signals: Signals) -> Array:
    return moving(config.start, config.end, "linear", signals.progress)


def _cosine_ratio(config: CosineRatio, signals: Signals) -> Array:
    return moving(config.start, config.end, "cosine", signals.progress)


def _easy_to_hard(
    config: Curriculum, difficulty: Difficulty, mask: TokenMask, signals: Signals
) -> PerToken:
    """Weight w ∝ (1−λ)(1−u) + λ·u with λ the progress, of mean 1 (EGAD, as we define it)."""
    u, late = difficulty.entropy_rank, jnp.asarray(signals.progress, difficulty.scores.dtype)
    assert u is not None  # `DistillConfig.ranks_entropy`
    raw = jnp.where(mask, (1.0 - late) * (1.0 - u) + late * u, 0.0)
    tokens = jnp.maximum(mask.sum(), 1).astype(raw.dtype)
    mean = jnp.sum(raw) / tokens
    return jnp.where(mean > 0.0, raw / jnp.where(mean > 0.0, mean, 1.0), mask.astype(raw.dtype))


FOCI: Mapping[str, FocusRule] = {
    "all": FocusRule(_keep_all, _count_all),
    "top_ratio": _keep_share(_fixed_ratio),
    "linear": _keep_share(_linear_ratio),
    "cosine": _keep_share(_cosine_ratio),
    "latf": _keep_share(_controlled_ratio),
    "curriculum": FocusRule(_easy_to_hard, _count_all),
    "random": _keep_share(_fixed_ratio, _by_chance),
}


def _rule(config: DistillConfig) -> FocusRule:
    if not config.has_kd:
        return FOCI["all"]
    rule = choose(FOCI, "focus", config.focus.kind)
    # Uniform scores rank nothing: a share of them would be the first tokens of the batch.
    return FOCI["all"] if rule.ranks and config.score.kind == "uniform" else rule


def keeps_every_token(config: DistillConfig) -> bool:
    """Whether each response token has weight 1 whatever its difficulty."""
    return _rule(config) is FOCI["all"]


def token_weights(
    config: DistillConfig, difficulty: Difficulty, mask: TokenMask, signals: Signals
) -> PerToken:
    """Weight w of each token in L_KD; 0 for a token that is not kept. No gradient.

    Scope: all tokens given, which must be the global micro-batch.
    """
    weights = _rule(config).weights(config.focus, difficulty, mask, signals)
    return jax.lax.stop_gradient(weights)


def weight_total(config: DistillConfig, mask: TokenMask, signals: Signals) -> Float[Array, ""]:
    """Σ w of one global micro-batch, float32; it follows from the mask and the ratio alone."""
    return _rule(config).total(config.focus, mask, signals)
