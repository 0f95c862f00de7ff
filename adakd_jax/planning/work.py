"""What one train step computes.

The bodies of both models are counted in the traced step, whatever is trained in it; attention and
output embeddings, whose loops depend on the data, by formula.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from adakd_jax.config.plan import PlanConfig
from adakd_jax.planning.flops import (
    attention_operations,
    head_operations,
    head_work,
    product_operations,
)
from adakd_jax.training.dry_run import Shapes, abstract_step, run_shapes

# In forward passes: the backward pass of attention has twice the products of the forward pass. All
# implementations make the scores again; splash, in two kernels, also their gradient twice.
ATTENTION_BACKWARD, AGAIN_BACKWARD, SPLASH_BACKWARD = 2.0, 2.5, 3.5


class Operations(NamedTuple):
    """Of one step on all devices: what its result needs, and with what is computed again."""

    needed: float
    executed: float


def step_operations(
    config: PlanConfig, layout: tuple[int, int], attention: Mapping[str, str] | None = None
) -> Operations:
    """Operations of one step on all devices, in rows that are full.

    Args:
        config: of the run; `response_share` of the tokens have logits.
        layout: micro-batches of the step, and rows of each.
        attention: its implementation in "teacher" and "student", by default splash; XLA's computes
            what causality hides, too.
    """
    shapes = _counted(config, layout)
    rows, length = math.prod(layout), config.data.max_length
    teacher, student = shapes.teacher, shapes.student
    by = {"teacher": "splash", "student": "splash"} | dict(attention or {})
    taught, taught_whole = (
        0.0 if teacher is None else attention_operations(teacher, length, whole=whole)
        for whole in (False, by["teacher"] == "xla")
    )
    own = attention_operations(student, length)
    own_whole = attention_operations(student, length, whole=by["student"] == "xla")
    backward = SPLASH_BACKWARD if by["student"] == "splash" else AGAIN_BACKWARD
    again = 0.0 if student.remat == "none" else 1.0
    heads = config.response_share * length * _heads(config, shapes)
    kept = config.model_copy(
        update={"student": config.student.model_copy(update={"remat": "none"})}
    )
    needed = _bodies(kept, layout)
    executed = needed if student.remat == "none" else _bodies(config, layout)
    return Operations(
        needed + rows * (heads + taught + own * (1.0 + ATTENTION_BACKWARD)),
        executed + rows * (heads + taught_whole + own_whole * (1.0 + again + backward)),
    )


def _heads(config: PlanConfig, shapes: Shapes) -> float:
    """Operations of the output embeddings for a response token."""
    teacher, student = shapes.teacher, shapes.student
    return head_operations(
        head_work(config.distill, trains_head=student.lora is None),
        student.embed_dim,
        0 if teacher is None else teacher.embed_dim,
        min(model.vocab_size for model in (student, teacher) if model is not None),
    )


def _bodies(config: PlanConfig, layout: tuple[int, int]) -> float:
    """Products of the traced step, without attention and output embeddings."""
    train_step, arguments = abstract_step(config, _counted(config, layout))
    return product_operations(train_step.trace(*arguments).jaxpr.jaxpr)


def _counted(config: PlanConfig, layout: tuple[int, int]) -> Shapes:
    """Models whose attention has no products of its own in a traced step: it is a kernel."""
    return run_shapes(config, layout=layout, attention="splash", sinks=False)
