"""Slot 3: how sharp the target is."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from adakd_jax.config.stage import NonNegative, Stage


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
    median: Literal["batch", "row"] = Field(
        default="batch",
        description="which kept tokens a token's difficulty is compared with: those of the global "
        "micro-batch, or of its packed row",
    )
    differentiable: bool = Field(
        default=False,
        description="let the loss's gradient flow through τ into the scores and their median, as "
        "the released code does; false: τ is a constant",
    )


class EntropyTemperature(Stage):
    """Temperature by the rank of the teacher's entropy (EGAD): sharp where the teacher is sure."""

    kind: Literal["entropy"] = "entropy"
    min: PositiveFloat = Field(default=1.0, description="τ where the teacher is surest")
    max: PositiveFloat = Field(default=2.0, description="τ where the teacher is least sure")
    inverse: bool = Field(default=False, description="exchange the two")


class Ctkd(Stage):
    """One temperature learned against the student, by gradient reversal (CTKD)."""

    kind: Literal["ctkd"] = "ctkd"
    initial: PositiveFloat = Field(default=1.0, description="temperature T₀ at the start")
    learning_rate: PositiveFloat = Field(
        default=1e-3,
        description="of the logarithm of the temperature (Adam), at the end of the run: it grows "
        "from 0, half a cosine",
    )


class Dtkd(Stage):
    """A temperature for student and teacher each, by the height of their largest logit (DTKD)."""

    kind: Literal["dtkd"] = "dtkd"


class LogitStandardization(Stage):
    """Logits divided by their standard deviation, for student and teacher each."""

    kind: Literal["logit_standardization"] = "logit_standardization"
    base: PositiveFloat = Field(
        default=1.0, description="temperature τ_base of standardised logits"
    )


Temperature = Annotated[
    FixedTemperature | Idts | EntropyTemperature | Ctkd | Dtkd | LogitStandardization,
    Field(discriminator="kind"),
]
