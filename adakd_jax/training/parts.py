"""What a train step is compiled from."""

from typing import NamedTuple

import optax
from flax import nnx

from adakd_jax.config import DistillConfig, RunConfig
from adakd_jax.distill import mapped_layers
from adakd_jax.models.config import DecoderConfig
from adakd_jax.teacher_cache.reading import TeacherCache
from adakd_jax.training.learned import build_learner
from adakd_jax.training.optimizer import build_optimizer, learning_rate_schedule


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
    balance_weight: float = 0.0  # of the load-balancing loss of the student's routers
    trains_router: bool = True
    vocabulary: int | None = None  # tokens that a cached teacher has chosen from
    token_gradients: bool = False  # whether each token's gradient is measured
    whole_logits: bool = False  # only to be compared with: see training/forward.py


Structure = tuple[DecoderConfig, nnx.GraphDef]


def step_parts(
    config: RunConfig,
    total_steps: int,
    student: Structure,
    teacher: Structure | None,
    *,
    batch_axes: tuple[str, ...] = (),
    cache: TeacherCache | None = None,
) -> StepParts:
    """The static half of the train step, from settings and the structure of both models.

    `batch_axes` are the mesh axes that share the rows.
    """
    optimizer, distill = config.optimizer, config.distill
    schedule = learning_rate_schedule(optimizer, total_steps)
    layers = ()
    if distill.has_features and teacher is not None:
        count = distill.features.layers
        layers = mapped_layers(count, student[0].num_layers, teacher[0].num_layers)
    return StepParts(
        distill=distill,
        optimizer=build_optimizer(
            optimizer, distill, total_steps, trains_router=config.student.train_router
        ),
        schedule=schedule,
        student=student[1],
        teacher=None if teacher is None else teacher[1],
        total_steps=total_steps,
        learner=build_learner(distill, optimizer, schedule),
        layers=layers,
        average_decay=optimizer.average_decay,
        batch_axes=batch_axes,
        balance_weight=balance_weight(config, student[0]),
        trains_router=config.student.train_router,
        vocabulary=None if cache is None else cache.manifest.form.vocabulary,
        token_gradients=config.logging.token_gradients and distill.has_kd,
    )


def balance_weight(config: RunConfig, student: DecoderConfig) -> float:
    """That of the load-balancing loss: the given one, or the one of the model's config.json."""
    given = config.student.balance_weight
    if given is not None or student.experts is None:
        return given or 0.0
    return student.experts.balance_weight
