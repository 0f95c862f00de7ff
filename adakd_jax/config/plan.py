"""What a plan asks besides the settings of the run that is planned."""

import warnings
from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from adakd_jax.config.run import RunConfig
from adakd_jax.config.stage import Ratio


def _separate(names: object) -> object:
    """Names in one text are separated by commas."""
    return tuple(names.split(",")) if isinstance(names, str) else names


with warnings.catch_warnings():
    # `--json FILE` is what anyone would type; the method of that name is pydantic 1's.
    warnings.filterwarnings("ignore", message='Field name "json"')

    class PlanConfig(RunConfig):
        """Where the run is planned for, and what of it cannot be read from its settings."""

        topology: Annotated[tuple[str, ...], BeforeValidator(_separate)] = Field(
            min_length=1,
            description="one, or several separated by commas: a TPU slice by its chips as v5e:4x4 "
            "or as a product, v5litepod-16 or v5p-128 (several slices of it: mesh.slices), GPUs of "
            "a host as h100:8 or of four hosts as h100:8x4, or cpu:8",
        )
        examples: PositiveInt | None = Field(
            default=None,
            description="examples of the training data, where training.epochs says how long the "
            "run is; null: days and chip-hours stay open",
        )
        tokens_per_example: PositiveFloat | None = Field(
            default=None,
            description="mean tokens of an example, prompt and answer, by which packed rows are "
            "counted; null: a row each, at most",
        )
        response_share: Ratio = Field(
            default=1.0,
            description="share of the tokens that are answers, whose logits are computed; 1: at "
            "most",
        )
        rows_per_device: PositiveInt | None = Field(
            default=None,
            description="rows of a micro-batch on each device that shares them, in place of the "
            "configured batch, which then grows with the devices",
        )
        json: str | None = Field(  # pyright: ignore[reportIncompatibleMethodOverride]
            default=None, description="file for the whole plan as JSON"
        )
