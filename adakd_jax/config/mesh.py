"""How devices are laid out, and what is split over them."""

from typing import Literal

from pydantic import Field, PositiveInt

from adakd_jax.config.stage import Stage

MeshAxis = Literal["data", "fsdp", "tensor"]
LogicalAxis = Literal["vocab", "embed", "heads", "kv_heads", "ffw"]


class MeshConfig(Stage):
    """A grid of devices: data × fsdp × expert × tensor. On one device there is none."""

    data: PositiveInt | None = Field(
        default=None,
        description="groups of devices that hold a copy of the weights each and share the rows; "
        "null: as many as there are devices for",
    )
    fsdp: PositiveInt = Field(
        default=1,
        description="devices that share the rows and hold a part of every weight each, gathered "
        "layer by layer",
    )
    expert: PositiveInt = Field(
        default=1,
        description="devices that share the rows and hold a part of the experts of every layer "
        "each: they show one another their rows, and each computes those of its experts; divides "
        "the experts of the models that have some",
    )
    tensor: PositiveInt = Field(
        default=1,
        description="devices that hold a part of every layer each and compute it together; divides "
        "the heads of both models",
    )
    slices: PositiveInt = Field(
        default=1, description="TPU slices that `data` goes across; divides it"
    )
    student_rules: dict[LogicalAxis, MeshAxis | None] = Field(
        default={},
        description="logical axis → mesh axis (null: not split), where the student differs from "
        "vocab, heads, kv_heads, ffw → tensor and embed → fsdp",
    )
    teacher_rules: dict[LogicalAxis, MeshAxis | None] = Field(
        default={}, description="the same for the teacher"
    )
