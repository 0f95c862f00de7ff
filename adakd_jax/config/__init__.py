"""Every setting of a run: one frozen model per stage, in the order the data flows.

The home of defaults; the description of a field is what `--help` prints.
"""

from adakd_jax.config.data import (
    Columns,
    DataConfig,
    FileSource,
    HubSource,
    Source,
    TfdsSource,
)
from adakd_jax.config.distill import (
    AllTokens,
    DistillConfig,
    Divergence,
    FixedTemperature,
    Focus,
    ForwardKl,
    HellingerScore,
    Idts,
    Latf,
    ReverseKl,
    Score,
    Temperature,
    TopRatio,
    UniformScore,
)
from adakd_jax.config.models import (
    Student,
    StudentCheckpoint,
    StudentLayers,
    StudentRandom,
    TeacherConfig,
)
from adakd_jax.config.run import (
    RunConfig,
)
from adakd_jax.config.stage import (
    Stage,
)
from adakd_jax.config.training import (
    CheckpointConfig,
    EvaluationConfig,
    ExportConfig,
    GenerationConfig,
    LoggingConfig,
    OptimizerConfig,
    TrainingConfig,
)

__all__ = [
    "AllTokens",
    "CheckpointConfig",
    "Columns",
    "DataConfig",
    "DistillConfig",
    "Divergence",
    "EvaluationConfig",
    "ExportConfig",
    "FileSource",
    "FixedTemperature",
    "Focus",
    "ForwardKl",
    "GenerationConfig",
    "HellingerScore",
    "HubSource",
    "Idts",
    "Latf",
    "LoggingConfig",
    "OptimizerConfig",
    "ReverseKl",
    "RunConfig",
    "Score",
    "Source",
    "Stage",
    "Student",
    "StudentCheckpoint",
    "StudentLayers",
    "StudentRandom",
    "TeacherConfig",
    "Temperature",
    "TfdsSource",
    "TopRatio",
    "TrainingConfig",
    "UniformScore",
]
