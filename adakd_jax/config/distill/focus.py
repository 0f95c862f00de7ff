"""Slot 2: which tokens count, and how much."""

from typing import Annotated, Literal

from pydantic import Field

from adakd_jax.config.stage import Probability, Ratio, Stage


class AllTokens(Stage):
    """Every response token counts."""

    kind: Literal["all"] = "all"


class _Selecting(Stage):
    review_ratio: Probability = Field(
        default=0.0,
        description="probability that a step is a review: it uses all tokens, and LATF ignores it",
    )


class TopRatio(_Selecting):
    """A fixed share of the hardest response tokens."""

    kind: Literal["top_ratio"] = "top_ratio"
    ratio: Ratio = Field(default=0.75, description="share r of response tokens kept")


class RandomTokens(_Selecting):
    """A fixed share of the response tokens, drawn at random whatever their difficulty."""

    kind: Literal["random"] = "random"
    ratio: Ratio = Field(default=0.75, description="share r of response tokens kept")


class _Scheduled(_Selecting):
    start: Ratio = Field(default=1.0, description="share r at the first step")
    end: Ratio = Field(default=0.75, description="share r at the end of the run")


class LinearRatio(_Scheduled):
    """A share of the hardest response tokens that moves along a line."""

    kind: Literal["linear"] = "linear"


class CosineRatio(_Scheduled):
    """A share of the hardest response tokens that moves along half a cosine."""

    kind: Literal["cosine"] = "cosine"


class Latf(_Selecting):
    """Loss-driven adaptive token focusing (LATF; AdaKD eqs. 4-7)."""

    kind: Literal["latf"] = "latf"
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.99, description="decay β of the monitored loss's average, per optimizer step"
    )
    tolerance: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.05, description="relative change ε of that average that moves the ratio"
    )
    step_size: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.05, description="relative change δ of the ratio"
    )
    min_ratio: Ratio = Field(default=0.1, description="lower bound r_min of the ratio")
    warmup_fraction: Probability = Field(
        default=0.05, description="share of all steps before the ratio may move (at least one step)"
    )
    monitor: Literal["selected", "all_tokens"] = Field(
        default="selected",
        description="loss the controller watches: that of the kept tokens, or of all tokens at the "
        "base temperature",
    )


class Curriculum(Stage):
    """All tokens, those where the teacher is sure first, the others later (EGAD)."""

    kind: Literal["curriculum"] = "curriculum"


Focus = Annotated[
    AllTokens | TopRatio | LinearRatio | CosineRatio | Latf | Curriculum | RandomTokens,
    Field(discriminator="kind"),
]
