"""Slot 1: how difficult a token is for the student."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from adakd_jax.config.stage import Stage


class UniformScore(Stage):
    """Every token equally difficult, s = 1: all are kept, at the base temperature."""

    kind: Literal["uniform"] = "uniform"


class RandomScore(Stage):
    """A number drawn for each token, uniform in [0, 1)."""

    kind: Literal["random"] = "random"


class HellingerScore(Stage):
    """Hellinger distance of student to teacher (AdaKD eq. 3)."""

    kind: Literal["hellinger"] = "hellinger"


class ForwardKlScore(Stage):
    """KL(p‖q) of teacher to student."""

    kind: Literal["forward_kl"] = "forward_kl"


class ReverseKlScore(Stage):
    """KL(q‖p) of student to teacher."""

    kind: Literal["reverse_kl"] = "reverse_kl"


class JsdScore(Stage):
    """Jensen-Shannon divergence, both halves of weight ½."""

    kind: Literal["jsd"] = "jsd"


class BhattacharyyaScore(Stage):
    """−log of the overlap Σ √(pq)."""

    kind: Literal["bhattacharyya"] = "bhattacharyya"


class StudentConfidenceScore(Stage):
    """1 − max q: how unsure the student is of its favourite."""

    kind: Literal["student_confidence"] = "student_confidence"


class StudentEntropyScore(Stage):
    """Entropy of the student."""

    kind: Literal["student_entropy"] = "student_entropy"


class TeacherEntropyScore(Stage):
    """Entropy of the teacher."""

    kind: Literal["teacher_entropy"] = "teacher_entropy"


class CrossEntropyScore(Stage):
    """−log q of the label."""

    kind: Literal["cross_entropy"] = "cross_entropy"


class CeEntropyScore(Stage):
    """−log q of the label, times the student's entropy."""

    kind: Literal["ce_entropy"] = "ce_entropy"


class SensitivityScore(Stage):
    """KL(q‖p) over the student's entropy."""

    kind: Literal["sensitivity"] = "sensitivity"


class LabelGapScore(Stage):
    """(1 − p of the label)·(−log q of the label)."""

    kind: Literal["label_gap"] = "label_gap"


class LogTokuScore(Stage):
    """Aleatoric times epistemic uncertainty of the student's largest logits (LogTokU)."""

    kind: Literal["logtoku"] = "logtoku"
    k: PositiveInt = Field(default=10, description="number of largest logits looked at")


class NmtKdScore(Stage):
    """How far the student's ranking of likely tokens is from the teacher's."""

    kind: Literal["nmtkd"] = "nmtkd"
    k: PositiveInt = Field(
        default=10, description="number of likeliest tokens compared; the paper's ablation uses 5"
    )


Score = Annotated[
    HellingerScore
    | ForwardKlScore
    | ReverseKlScore
    | JsdScore
    | BhattacharyyaScore
    | StudentConfidenceScore
    | StudentEntropyScore
    | TeacherEntropyScore
    | CrossEntropyScore
    | CeEntropyScore
    | SensitivityScore
    | LabelGapScore
    | LogTokuScore
    | NmtKdScore
    | RandomScore
    | UniformScore,
    Field(discriminator="kind"),
]
