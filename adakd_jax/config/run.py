"""The whole configuration of a run."""

from typing import ClassVar

from pydantic import Field, NonNegativeInt

from adakd_jax.config.checks import RUN_CHECKS
from adakd_jax.config.data import DataConfig
from adakd_jax.config.distill import DistillConfig
from adakd_jax.config.mesh import MeshConfig
from adakd_jax.config.models import Student, TeacherConfig
from adakd_jax.config.policy import Offline, Policy
from adakd_jax.config.processes import ProcessesConfig
from adakd_jax.config.stage import Check, Stage
from adakd_jax.config.training import (
    CheckpointConfig,
    EvaluationConfig,
    ExportConfig,
    LoggingConfig,
    OptimizerConfig,
    TrainingConfig,
)


class RunConfig(Stage):
    """One distillation run, from data to exported student."""

    checks: ClassVar[tuple[Check, ...]] = RUN_CHECKS

    run_dir: str = Field(
        min_length=1, description="folder of checkpoints, metrics and reports; local or gs://"
    )
    seed: NonNegativeInt = Field(
        default=0, description="seed of data order, initial weights and sampling"
    )
    data: DataConfig = Field(description="training and held-out rows")
    teacher: TeacherConfig | None = Field(
        default=None,
        description="the model that teaches; null: none, for supervised fine-tuning "
        "(distill.kd_weight 0, distill.ce_weight above 0)",
    )
    policy: Policy = Field(
        default=Offline(), description="where the responses that are learned from come from"
    )
    student: Student = Field(description="the model that learns: where its weights start")
    distill: DistillConfig = Field(default=DistillConfig(), description="the loss")
    optimizer: OptimizerConfig = Field(
        default=OptimizerConfig(), description="AdamW and its schedule"
    )
    training: TrainingConfig = Field(description="length and batches")
    mesh: MeshConfig = Field(default=MeshConfig(), description="how devices are laid out")
    processes: ProcessesConfig = Field(
        default=ProcessesConfig(), description="how the processes of the run find each other"
    )
    checkpoint: CheckpointConfig = Field(default=CheckpointConfig(), description="saving")
    evaluation: EvaluationConfig = Field(
        default=EvaluationConfig(), description="held-out measurements"
    )
    logging: LoggingConfig = Field(default=LoggingConfig(), description="metrics")
    export: ExportConfig = Field(default=ExportConfig(), description="the Hugging Face folder")

    @property
    def learns_from_weights(self) -> bool:
        """Whether a training step runs the teacher."""
        return self.distill.has_teacher and self.teacher is not None and self.teacher.cache is None

    @property
    def loads_teacher(self) -> bool:
        """Whether the teacher's files are needed: to learn from, or for what the student takes of
        them, its layers or its tokenizer.
        """
        if self.teacher is None:
            return False
        return self.teacher.cache is None or self.student.kind != "checkpoint"
