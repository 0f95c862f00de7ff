"""The settings of `adakd_jax.prune`: those of a run, and which smaller models are tried."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, PositiveInt

from adakd_jax.config.checks import RUN_CHECKS
from adakd_jax.config.run import RunConfig
from adakd_jax.config.stage import Check, Conflict, Ratio


def _separate(values: object) -> object:
    """Values in one text are separated by commas."""
    return tuple(values.split(",")) if isinstance(values, str) else values


def _a_teacher(teacher: object) -> Conflict | None:
    if teacher is not None:
        return None
    return Conflict("there is no teacher to make smaller", "teacher.path")


def _in_full_precision(quantization: str | None) -> Conflict | None:
    if quantization is None:
        return None
    return Conflict("a student does not start from rounded weights", "teacher.quantization null")


class PruneCommand(RunConfig):
    """The run whose teacher is looked at, and the sizes that are tried."""

    checks: ClassVar[tuple[Check, ...]] = (
        *RUN_CHECKS,
        Check(("teacher",), _a_teacher),
        Check(("teacher.quantization",), _in_full_precision),
    )

    shares: Annotated[tuple[Ratio, ...], BeforeValidator(_separate)] = Field(
        default=(0.9, 0.75, 0.6),
        min_length=1,
        description="how much is kept of what is made smaller, each tried by itself",
    )
    of: Annotated[
        tuple[Literal["parameters", "layers", "ffw", "heads", "width", "experts"], ...],
        BeforeValidator(_separate),
    ] = Field(
        default=("layers", "ffw"),
        min_length=1,
        description="what is made smaller, as keys of student.kind pruned",
    )
    rounds: PositiveInt | None = Field(
        default=None,
        description="how many layers are left out one by one, each time the one that the model "
        "misses least: a pass over the rows for each layer that is left, every time; null: none",
    )
    output: str | None = Field(
        default=None,
        description="the page to write, and beside it the numbers as .json; null: pruning.html in "
        "run_dir",
    )
