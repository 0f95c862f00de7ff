"""What some methods train beside the student: a temperature, a projection. It is never exported."""

import math
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from adakd_jax.config import Ctkd, DistillConfig, OptimizerConfig
from adakd_jax.distill.schedule import moving


class Learned(NamedTuple):
    """Such parameters by name, and the state of their own optimizer.

    `log_temperature` [] is CTKD's, as a logarithm so that it stays > 0; `projector` [Ds, Dt] maps
    the student's hidden states to the teacher's width.
    """

    values: dict[str, Array]
    opt_state: optax.OptState


def initial_learned(
    config: DistillConfig, student_width: int, teacher_width: int, key: Array
) -> dict[str, Array]:
    """What the method learns, as it starts; empty for most methods.

    The projection is the identity where the widths are equal, else normal with variance 1/Ds.
    """
    values: dict[str, Array] = {}
    if (learned := _learned_temperature(config)) is not None:
        values["log_temperature"] = jnp.float32(math.log(learned.initial))
    if config.has_features:
        size = (student_width, teacher_width)
        same = student_width == teacher_width
        drawn = jax.random.normal(key, size, jnp.float32) / math.sqrt(student_width)
        values["projector"] = jnp.eye(student_width, dtype=jnp.float32) if same else drawn
    return values


def build_learner(
    config: DistillConfig, optimizer: OptimizerConfig, schedule: optax.Schedule
) -> optax.GradientTransformationExtraArgs | None:
    """The optimizer of `initial_learned`: Adam at CTKD's own rate, growing with the run, the
    student's AdamW for the projection; None if nothing is learned.

    Its update takes `progress`, steps done over all steps, by keyword.
    """
    links: dict[Hashable, optax.GradientTransformation] = {}
    if (learned := _learned_temperature(config)) is not None:
        links["log_temperature"] = optax.chain(
            optax.scale_by_adam(), scale_by_strength(learned.learning_rate)
        )
    if config.has_features:
        links["projector"] = optax.adamw(
            schedule,
            b1=optimizer.b1,
            b2=optimizer.b2,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
        )
    return optax.partition(links, {name: name for name in links}) if links else None


def scale_by_strength(learning_rate: float) -> optax.GradientTransformationExtraArgs:
    """−rate·λ, with CTKD's strength of the reversal λ = (1 − cos π·progress)/2, from 0 to 1.

    Last of a chain: Adam divides a gradient by its own size, and λ with it, so that a temperature
    would move at its full rate from the second step on.
    """

    def update(
        updates: optax.Updates, state: optax.OptState, params: Any = None, *, progress: Array
    ) -> tuple[optax.Updates, optax.OptState]:
        rate = learning_rate * moving(0.0, 1.0, "cosine", progress)
        return jax.tree.map(lambda x: -rate * x, updates), state

    update_fn = cast(optax.TransformUpdateFn, update)
    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update_fn)


def as_signals(values: Mapping[str, Any] | None) -> dict[str, Array] | None:
    """The parameters as `Signals.learned` takes them."""
    if not values:
        return None
    signals = dict(values)
    if "log_temperature" in signals:
        signals["temperature"] = jnp.exp(signals.pop("log_temperature"))
    return signals


def _learned_temperature(config: DistillConfig) -> Ctkd | None:
    temperature = config.temperature
    return temperature if config.has_kd and isinstance(temperature, Ctkd) else None
