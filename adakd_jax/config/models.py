"""The teacher, and where the student's weights start."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from adakd_jax.config.stage import Stage


class TeacherConfig(Stage):
    """The model that teaches; its weights never change."""

    cache: str | None = Field(
        default=None,
        description="local folder of what adakd_jax.cache_teacher keeps of the teacher: its "
        "likeliest next tokens in every example. Training then learns from these, and does without "
        "the teacher",
    )

    path: str = Field(
        description="hub id, local folder, .gguf file, or 'package:NAME/FILE' inside an installed "
        "package"
    )
    fallback: str | None = Field(
        default=None,
        description="used when `path` cannot be reached, e.g. the hub's copy of the same model",
    )
    revision: str | None = Field(default=None, description="hub branch, tag or commit")
    architecture: dict[str, Any] | None = Field(
        default=None,
        description="keys of the config.json that the model must have; `--dry_run` uses them where "
        "the model is out of reach",
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None,
        description="precision of weights and compute; null: bfloat16 on TPU and GPU, float32 on "
        "CPU",
    )
    quantization: Literal["int8", "nf4"] | None = Field(
        default=None,
        description="what the kernels of the layers are rounded to as they are read: int8, a byte "
        "a weight, or nf4, 4.5 bits; each layer restores its own; null: kept in `dtype`",
    )
    quantization_tile: PositiveInt = Field(
        default=64,
        description="under nf4, how many weights share a scale; more are smaller and coarser",
    )
    adapter: str | None = Field(
        default=None,
        description="PEFT adapter (LoRA) that is merged into its weights: folder or hub id",
    )


class LoraConfig(Stage):
    """Low-rank adapters: they are trained in place of the weights, which stay as they are."""

    rank: PositiveInt = Field(default=16, description="r, width of an adapter")
    alpha: PositiveFloat = Field(default=64.0, description="α: what an adapter adds is times α/r")
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.1,
        description="share of an adapter's inputs that a training step zeroes, to the nearest "
        "1/256; projections of one input share what is zeroed",
    )
    targets: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="projections that get an adapter, by their names in transformers, such as "
        "q_proj, v_proj; null: all of every layer",
    )
    base_dtype: Literal["bfloat16", "float32"] = Field(
        default="bfloat16",
        description="precision that the frozen weights are kept in; an exported adapter fits them "
        "as they were rounded: choose float32 to export one for a checkpoint in float32",
    )


class _Student(Stage):
    compute_dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None,
        description="precision of activations (what is trained is float32); null: bfloat16 on TPU "
        "and GPU, float32 on CPU",
    )
    remat: Literal["none", "dots", "full"] = Field(
        default="dots",
        description="what the backward pass computes again to save memory: nothing, all but "
        "products (nearly free), all",
    )
    lora: LoraConfig | None = Field(
        default=None, description="low-rank adapters; null: every weight is trained"
    )
    train_router: bool = Field(
        default=True,
        description="of a mixture of experts: whether what chooses the experts is trained too; "
        "under `lora` it never is",
    )
    balance_weight: NonNegativeFloat | None = Field(
        default=None,
        description="of a mixture of experts: weight of the loss that keeps the experts equally "
        "loaded, over all tokens of a micro-batch; null: router_aux_loss_coef of its config.json",
    )
    adapter: str | None = Field(
        default=None,
        description="PEFT adapter (LoRA) to start from, a folder or hub id: with `lora` it is "
        "trained further, without merged into the weights",
    )


def _ascending(layers: tuple[int, ...]) -> tuple[int, ...]:
    """Refuses another order: it is a typing error more often than an experiment."""
    expected = tuple(sorted(set(layers)))
    if layers != expected:
        raise ValueError(
            "the student keeps the teacher's order, each layer once; "
            f"did you mean {','.join(map(str, expected))}?"
        )
    return layers


class StudentLayers(_Student):
    """A student that starts as some of the teacher's layers."""

    kind: Literal["layers"] = "layers"
    layers: Annotated[tuple[NonNegativeInt, ...], AfterValidator(_ascending)] = Field(
        min_length=1, description="teacher layers to keep, counted from 0, ascending"
    )


def _parameter_number(value: Any) -> Any:
    """From 80M or 1.5B to a whole number."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMB])", value.strip().upper())
    if found is None:
        return value
    return round(float(found[1]) * _UNITS[found[2]])


_UNITS = {"K": 1e3, "M": 1e6, "B": 1e9}
# A whole number is a number; a fraction below 1 is a share of the teacher's.
Size = PositiveInt | Annotated[float, Field(gt=0.0, lt=1.0)]


def _sole(value: Any) -> Any:
    """The flag --student.layers is that of kind layers, too, where it is a list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


class StudentPruned(_Student):
    """A student that starts as what matters most in the teacher, measured on training rows.

    A size is a number, or a share of the teacher's below 1; null: the teacher's. Widths given as
    shares are rounded to what hardware likes.
    """

    kind: Literal["pruned"] = "pruned"
    parameters: Annotated[PositiveInt, BeforeValidator(_parameter_number)] | None = Field(
        default=None,
        description="how many parameters it has, about, such as 80M or 1.5B; sizes that are not "
        "given are then chosen for it",
    )
    layers: Annotated[Size | None, BeforeValidator(_sole)] = Field(
        default=None, description="layers to keep: a number, or a share"
    )
    ffw: Size | None = Field(
        default=None, description="neurons of each feed-forward, or of each expert"
    )
    heads: Size | None = Field(
        default=None,
        description="query heads of each attention, in whole groups that share a key-value head",
    )
    width: Size | None = Field(
        default=None, description="numbers of the residual stream: the width of the embeddings"
    )
    experts: Size | None = Field(default=None, description="experts of each layer")
    layers_by: Literal["influence", "kl"] = Field(
        default="influence",
        description="which layers matter: those that change their input most (influence: one pass "
        "over the rows), or those without which the model is farthest from the teacher (kl: left "
        "out one by one, a pass for each layer that is left, each time)",
    )
    fit: bool = Field(
        default=True,
        description="whether the products behind neurons and heads that were left out are fitted, "
        "so that what is kept writes what all of it wrote (least squares on the same rows)",
    )
    calibration_rows: PositiveInt = Field(
        default=32,
        description="packed rows of data.max_length tokens that this is measured on, from all over "
        "the training rows",
    )


class StudentCheckpoint(_Student):
    """A student that starts from a checkpoint of its own."""

    kind: Literal["checkpoint"] = "checkpoint"
    path: str = Field(description="hub id, local folder, .gguf file, or 'package:NAME/FILE'")
    revision: str | None = Field(default=None, description="hub branch, tag or commit")
    architecture: dict[str, Any] | None = Field(
        default=None,
        description="keys of the config.json that the model must have; `--dry_run` uses them where "
        "the model is out of reach",
    )


class StudentRandom(_Student):
    """A student that starts from random weights."""

    kind: Literal["random"] = "random"
    config: str | dict[str, Any] = Field(
        description="a config.json (path, folder or hub id), or its content"
    )


Student = Annotated[
    StudentLayers | StudentPruned | StudentCheckpoint | StudentRandom, Field(discriminator="kind")
]
