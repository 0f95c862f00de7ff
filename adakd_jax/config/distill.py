"""The loss: one choice per slot (score, focus, temperature, divergence), and how terms add up."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from adakd_jax.config.stage import NonNegative, Probability, Ratio, Stage


class UniformScore(Stage):
    """Every token equally difficult, s = 1: all are kept, at the base temperature."""

    kind: Literal["uniform"] = "uniform"


class HellingerScore(Stage):
    """Hellinger distance of student to teacher (AdaKD eq. 3)."""

    kind: Literal["hellinger"] = "hellinger"


Score = Annotated[UniformScore | HellingerScore, Field(discriminator="kind")]


class AllTokens(Stage):
    """Every response token counts."""

    kind: Literal["all"] = "all"


class TopRatio(Stage):
    """A fixed share of the hardest response tokens."""

    kind: Literal["top_ratio"] = "top_ratio"
    ratio: Ratio = Field(default=0.75, description="share r of response tokens kept")


class Latf(Stage):
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


Focus = Annotated[AllTokens | TopRatio | Latf, Field(discriminator="kind")]


class FixedTemperature(Stage):
    """One temperature for all tokens."""

    kind: Literal["fixed"] = "fixed"
    base: PositiveFloat = Field(default=1.0, description="temperature τ_base")


class Idts(Stage):
    """Inverse difficulty temperature scaling (IDTS; AdaKD eqs. 9-10)."""

    kind: Literal["idts"] = "idts"
    base: PositiveFloat = Field(
        default=1.0, description="temperature τ_base of a token of median difficulty"
    )
    strength: NonNegative = Field(default=0.5, description="c: τ stays within τ_base·exp(±c)")
    inverse: bool = Field(default=True, description="hard tokens get the lower temperature")


Temperature = Annotated[FixedTemperature | Idts, Field(discriminator="kind")]


class ForwardKl(Stage):
    """Σ p log(p/q): the student covers what the teacher finds likely."""

    kind: Literal["forward_kl"] = "forward_kl"


class ReverseKl(Stage):
    """Σ q log(q/p): the student stays where the teacher finds likely."""

    kind: Literal["reverse_kl"] = "reverse_kl"


Divergence = Annotated[ForwardKl | ReverseKl, Field(discriminator="kind")]


class DistillConfig(Stage):
    """The loss: one choice per slot, and how the terms add up. Defaults are AdaKD."""

    score: Score = Field(default=HellingerScore(), description="slot 1: how difficult a token is")
    focus: Focus = Field(default=Latf(), description="slot 2: which tokens count")
    temperature: Temperature = Field(default=Idts(), description="slot 3: how sharp the target is")
    divergence: Divergence = Field(
        default=ReverseKl(), description="slot 4: distance to the teacher"
    )
    scale_by_squared_temperature: bool = Field(
        default=True, description="multiply each token's divergence by its τ²"
    )
    kd_weight: NonNegative = Field(default=1.0, description="weight of the distillation loss")
    ce_weight: NonNegative = Field(
        default=0.0, description="weight of the cross-entropy with the labels"
    )
    chunk_size: PositiveInt | None = Field(
        default=None,
        description="response tokens whose logits exist at a time, per device; default: as many as "
        "fit into 1 GiB (CPU: 128 MiB)",
    )
    keep_logits: Literal["none", "bfloat16", "float32"] = Field(
        default="none",
        description="keep the logits that tokens are ranked by and compare them again, instead of "
        "computing them twice: 2·tokens·V numbers of this type per device; bfloat16 rounds them",
    )
