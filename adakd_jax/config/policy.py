"""Where the responses that are learned from come from."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from adakd_jax.config.stage import NonNegative, Probability, Stage
from adakd_jax.config.training import GenerationConfig


class SampledGeneration(GenerationConfig):
    """How the answers that are learned from are sampled: from the model's own distribution, whole,
    as the papers do.
    """

    temperature: NonNegative = Field(default=1.0, description="0: greedy")
    batch_size: PositiveInt = Field(
        default=32,
        description="prompts decoded together; on a mesh, what its devices divide, no fewer",
    )


class Offline(Stage):
    """The responses of the data set."""

    kind: Literal["offline"] = "offline"


class SeqKd(Stage):
    """Responses that the teacher wrote once, before training (Kim & Rush, arXiv 1606.07947)."""

    kind: Literal["seqkd"] = "seqkd"
    generation: SampledGeneration = Field(
        default=SampledGeneration(), description="how the teacher answers"
    )


class Gkd(Stage):
    """In some steps, responses that the student samples (GKD, arXiv 2306.13649)."""

    kind: Literal["gkd"] = "gkd"
    student_fraction: Probability = Field(
        default=0.5, description="probability that the student writes the responses of a step"
    )
    schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="cosine: from 1 to 0 over the run, whatever the fraction"
    )
    generation: SampledGeneration = Field(
        default=SampledGeneration(), description="how the student answers"
    )


class DistiLlm(Stage):
    """Student's responses, fresh or replayed, the more often the less they serve to overfit
    (DistiLLM, arXiv 2402.03898).
    """

    kind: Literal["distillm"] = "distillm"
    split: Literal["constant", "increasing", "decreasing"] = Field(
        default="constant",
        description="share f of fresh responses among the student's: .5, t/T or 1 − t/T",
    )
    capacity: PositiveInt = Field(default=1000, description="responses that the buffer replays")
    loss_eps: NonNegativeFloat = Field(
        default=0.1,
        description="how much held-out NLL must rise for the student's responses to be used more "
        "often, in nats per token: above that before training, then above that of the last rise",
    )
    rise: Probability = Field(
        default=0.1, description="what that adds to φ, the probability of using them; φ starts at 0"
    )
    generation: SampledGeneration = Field(
        default=SampledGeneration(), description="how the student answers"
    )


Policy = Annotated[Offline | SeqKd | Gkd | DistiLlm, Field(discriminator="kind")]
