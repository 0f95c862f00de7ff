"""The loss: one choice per slot (score, focus, temperature, divergence), and how terms add up."""

from typing import Literal

from pydantic import Field, PositiveInt

from adakd_jax.config.distill.divergence import Divergence, ReverseKl
from adakd_jax.config.distill.focus import Curriculum, Focus, Latf
from adakd_jax.config.distill.score import HellingerScore, Score
from adakd_jax.config.distill.temperature import EntropyTemperature, Idts, Temperature
from adakd_jax.config.stage import NonNegative, Probability, Stage


class HiddenStates(Stage):
    """The feature term: hidden states of hard tokens, projected and compared (EGAD's dual branch).

    A projection [student width, teacher width] is trained with the student and never exported.
    """

    threshold: Probability = Field(
        default=0.5, description="tokens count whose rank of teacher entropy, in [0, 1], is above"
    )
    layers: PositiveInt = Field(
        default=1,
        description="1: the last hidden states; M: those after M evenly spaced layers of each",
    )


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
    feature_weight: NonNegative = Field(
        default=0.0, description="weight of the distance between hidden states"
    )
    kd_weight_end: NonNegative | None = Field(
        default=None, description="kd_weight at the end of the run; null: it stays"
    )
    ce_weight_end: NonNegative | None = Field(
        default=None, description="ce_weight at the end of the run; null: it stays"
    )
    feature_weight_end: NonNegative | None = Field(
        default=None, description="feature_weight at the end of the run; null: it stays"
    )
    weight_schedule: Literal["linear", "cosine"] = Field(
        default="linear",
        description="how a weight moves to its end, over the optimizer steps of the run",
    )
    features: HiddenStates = Field(
        default=HiddenStates(), description="which hidden states are compared, at which tokens"
    )
    chunk_size: PositiveInt | None = Field(
        default=None,
        description="response tokens whose logits exist at a time, per device; default: four times "
        "the device's operations a byte (v5e: 1,024, H100: 1,152), if their logits fit into an "
        "eighth of its memory; on a CPU, as many as fit into 128 MiB",
    )
    keep_logits: Literal["none", "bfloat16", "float32"] = Field(
        default="none",
        description="keep the logits that tokens are ranked by and compare them again, instead of "
        "computing them twice: 2·tokens·V numbers of this type per device; bfloat16 rounds them",
    )

    cached_tail: Literal["bucket", "even"] = Field(
        default="bucket",
        description="with `teacher.cache`, how the tokens that it does not name are compared. "
        "bucket: their mass, as one token; even: each, as if the teacher spread the mass evenly",
    )

    @property
    def has_kd(self) -> bool:
        """Whether the distillation loss counts at any step."""
        return _ever(self.kd_weight, self.kd_weight_end)

    @property
    def has_ce(self) -> bool:
        """Whether the cross-entropy counts at any step."""
        return _ever(self.ce_weight, self.ce_weight_end)

    @property
    def has_features(self) -> bool:
        """Whether hidden states are compared at any step."""
        return _ever(self.feature_weight, self.feature_weight_end)

    @property
    def has_teacher(self) -> bool:
        """Whether the teacher has a say: without, this is supervised fine-tuning."""
        return self.has_kd or self.has_features

    @property
    def ranks_entropy(self) -> bool:
        """Whether tokens are ranked by the teacher's entropy."""
        by_focus = isinstance(self.focus, Curriculum)
        by_temperature = isinstance(self.temperature, EntropyTemperature)
        return self.has_features or (self.has_kd and (by_focus or by_temperature))


def _ever(start: float, end: float | None) -> bool:
    return start > 0 or (end is not None and end > 0)
