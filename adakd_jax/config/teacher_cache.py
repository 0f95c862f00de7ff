"""The settings of `adakd_jax.cache_teacher`: those of a run, and how its teacher is kept."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from adakd_jax.config.checks import RUN_CHECKS
from adakd_jax.config.run import RunConfig
from adakd_jax.config.stage import Check, Conflict, Stage
from adakd_jax.user_path import is_remote


class EndpointConfig(Stage):
    """A server that is asked in place of loading the teacher: vLLM, or one that answers alike."""

    url: str = Field(
        min_length=1, description="its OpenAI-compatible root, e.g. http://localhost:8000/v1"
    )
    model: str | None = Field(
        default=None, description="the teacher's name on the server; null: teacher.path"
    )
    api_key_variable: str = Field(
        default="OPENAI_API_KEY", description="environment variable of the key, if one is needed"
    )
    parallel: PositiveInt = Field(default=8, description="examples asked for at a time")
    timeout_seconds: PositiveFloat = Field(default=300.0, description="of one request")
    retries: NonNegativeInt = Field(
        default=6, description="further tries of a request that fails, each after twice the wait"
    )


def _a_teacher(teacher: object) -> Conflict | None:
    if teacher is not None:
        return None
    return Conflict("there is no teacher to keep anything of", "teacher.path and teacher.cache")


def _a_folder(cache: str | None) -> Conflict | None:
    if cache is not None and not is_remote(cache):
        return None
    return Conflict("say where the cache goes: a folder of this machine", "--teacher.cache FOLDER")


class CacheCommand(RunConfig):
    """The run that the cache is for, and how its teacher is kept."""

    checks: ClassVar[tuple[Check, ...]] = (
        *RUN_CHECKS,
        Check(("teacher",), _a_teacher),
        Check(("teacher.cache",), _a_folder),
    )

    top_k: PositiveInt = Field(
        default=64, description="tokens kept at each response token; the others are one sum"
    )
    dtype: Literal["float16", "bfloat16"] = Field(
        default="float16", description="of the log-probabilities; float16 is the more exact"
    )
    batch_rows: PositiveInt = Field(
        default=4, description="packed rows in a forward pass of the teacher"
    )
    shard_examples: PositiveInt = Field(
        default=256, description="examples in a file; an interruption loses at most one file"
    )
    verify: NonNegativeInt = Field(
        default=16,
        description="examples computed again afterwards, to show what the cache loses; 0: none",
    )
    endpoint: EndpointConfig | None = Field(
        default=None, description="where the teacher is served; null: it is loaded"
    )
