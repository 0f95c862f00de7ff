"""The teacher, and where the student's weights start."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt

from adakd_jax.config.stage import Stage


class TeacherConfig(Stage):
    """The model that teaches; its weights never change."""

    path: str = Field(
        description="hub id, local folder, .gguf file, or 'package:NAME/FILE' inside an installed package"
    )
    fallback: str | None = Field(
        None,
        description="used when `path` cannot be reached, e.g. the hub's copy of the same model",
    )
    revision: str | None = Field(None, description="hub branch, tag or commit")
    dtype: Literal["float32", "bfloat16"] | None = Field(
        None, description="of weights and compute; default: bfloat16 on TPU and GPU, float32 on CPU"
    )


class _Student(Stage):
    compute_dtype: Literal["float32", "bfloat16"] | None = Field(
        None,
        description="of activations; weights are float32; default: bfloat16 on TPU and GPU, else float32",
    )
    remat: Literal["none", "dots", "full"] = Field(
        "none", description="what the backward pass computes again: nothing, all but products, all"
    )


class StudentLayers(_Student):
    """A student that starts as some of the teacher's layers."""

    kind: Literal["layers"] = "layers"
    layers: tuple[NonNegativeInt, ...] = Field(
        min_length=1, description="teacher layers to keep, from 0, in order"
    )


class StudentCheckpoint(_Student):
    """A student that starts from a checkpoint of its own."""

    kind: Literal["checkpoint"] = "checkpoint"
    path: str = Field(description="hub id, local folder, .gguf file, or 'package:NAME/FILE'")
    revision: str | None = Field(None, description="hub branch, tag or commit")


class StudentRandom(_Student):
    """A student that starts from random weights."""

    kind: Literal["random"] = "random"
    config: str | dict[str, Any] = Field(
        description="a config.json (path, folder or hub id), or its content"
    )


Student = Annotated[StudentLayers | StudentCheckpoint | StudentRandom, Field(discriminator="kind")]
