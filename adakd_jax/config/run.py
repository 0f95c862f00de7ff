"""The whole configuration of a run."""

from pydantic import Field, NonNegativeInt

from adakd_jax.config.data import DataConfig
from adakd_jax.config.distill import DistillConfig
from adakd_jax.config.models import Student, TeacherConfig
from adakd_jax.config.stage import Stage
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

    run_dir: str = Field(description="folder of checkpoints, metrics and reports; local or gs://")
    seed: NonNegativeInt = Field(0, description="of data order, initial weights and sampling")
    data: DataConfig
    teacher: TeacherConfig
    student: Student
    distill: DistillConfig = Field(DistillConfig(), description="the loss")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="AdamW and its schedule")
    training: TrainingConfig
    checkpoint: CheckpointConfig = Field(CheckpointConfig(), description="saving")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="held-out measurements")
    logging: LoggingConfig = Field(LoggingConfig(), description="metrics")
    export: ExportConfig = Field(ExportConfig(), description="the Hugging Face folder")
