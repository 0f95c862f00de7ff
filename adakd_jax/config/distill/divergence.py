"""Slot 4: the distance to the teacher. p is the teacher, q the student."""

from typing import Annotated, Literal

from pydantic import Field

from adakd_jax.config.stage import Probability, Stage

Inner = Annotated[float, Field(gt=0.0, lt=1.0)]
Skew = Annotated[float, Field(ge=0.0, lt=1.0)]


class ForwardKl(Stage):
    """Σ p log(p/q): the student covers what the teacher finds likely."""

    kind: Literal["forward_kl"] = "forward_kl"


class ReverseKl(Stage):
    """Σ q log(q/p): the student stays where the teacher finds likely."""

    kind: Literal["reverse_kl"] = "reverse_kl"


class SymmetricKl(Stage):
    """Forward plus reverse KL."""

    kind: Literal["symmetric_kl"] = "symmetric_kl"


class Jsd(Stage):
    """(1−λ)·KL(p‖m) + λ·KL(q‖m), m = (1−λ)p + λq: bounded, also at disjoint support."""

    kind: Literal["jsd"] = "jsd"
    lam: Inner = Field(default=0.9, description="λ, share of the student in the mixture m")


class Tvd(Stage):
    """Total variation ½ Σ|p − q|."""

    kind: Literal["tvd"] = "tvd"


class SkewForwardKl(Stage):
    """KL(p ‖ αp + (1−α)q): forward KL that stays finite (DistiLLM)."""

    kind: Literal["skew_forward_kl"] = "skew_forward_kl"
    alpha: Skew = Field(default=0.1, description="α, share of the teacher mixed into the student")


class SkewReverseKl(Stage):
    """KL(q ‖ (1−α)p + αq): reverse KL that stays finite (DistiLLM)."""

    kind: Literal["skew_reverse_kl"] = "skew_reverse_kl"
    alpha: Skew = Field(default=0.1, description="α, share of the student mixed into the teacher")


class Hellinger(Stage):
    """Squared Hellinger distance ½ Σ(√p − √q)², 1 at disjoint support."""

    kind: Literal["hellinger"] = "hellinger"


class AdaptiveKl(Stage):
    """Forward and reverse KL, weighted by the error at the head and at the tail (AKL)."""

    kind: Literal["adaptive_kl"] = "adaptive_kl"
    mu: Probability = Field(default=0.5, description="μ, teacher mass that is the head")


class AlphaBeta(Stage):
    """α-β divergence (ABKD): between and beyond forward and reverse KL."""

    kind: Literal["alpha_beta"] = "alpha_beta"
    alpha: float = Field(default=0.2, description="α; 0 is a limit (β = 1: reverse KL)")
    beta: float = Field(default=0.7, description="β; 0 is a limit (α = 1: forward KL)")


class ToDi(Stage):
    """Forward or reverse KL token by token of the vocabulary, whichever side is larger (ToDi)."""

    kind: Literal["todi"] = "todi"


class GkdJsd(Stage):
    """TRL's generalized JSD: β·KL(p‖m) + (1−β)·KL(q‖m), m = βp + (1−β)q (GKD)."""

    kind: Literal["gkd_jsd"] = "gkd_jsd"
    beta: Probability = Field(
        default=0.5,
        description="β; the value jumps at the ends: 0 is forward KL, 1 is reverse KL",
    )


Divergence = Annotated[
    ForwardKl
    | ReverseKl
    | SymmetricKl
    | Jsd
    | Tvd
    | SkewForwardKl
    | SkewReverseKl
    | Hellinger
    | AdaptiveKl
    | AlphaBeta
    | ToDi
    | GkdJsd,
    Field(discriminator="kind"),
]
