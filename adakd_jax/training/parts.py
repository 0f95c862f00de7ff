"""What a train step is compiled from."""

from typing import NamedTuple

import optax
from flax import nnx

from adakd_jax.config import DistillConfig


class StepParts(NamedTuple):
    """The static half of a train step: everything that is fixed when it is compiled."""

    distill: DistillConfig
    optimizer: optax.GradientTransformationExtraArgs
    schedule: optax.Schedule
    student: nnx.GraphDef
    teacher: nnx.GraphDef | None
    total_steps: int
    learner: optax.GradientTransformationExtraArgs | None = None
    layers: tuple[tuple[int, int], ...] = ()  # pairs whose hidden states are compared
    average_decay: float | None = None
    batch_axes: tuple[str, ...] = ()  # mesh axes that share the rows
    vocabulary: int | None = None  # tokens that a cached teacher has chosen from
    whole_logits: bool = False  # only to be compared with: see training/forward.py
