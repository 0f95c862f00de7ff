"""The frozen weights under the adapters of a run, which no checkpoint holds, found again."""

from typing import Any

import jax

from adakd_jax.config import RunConfig, StudentLayers
from adakd_jax.eval.model import run_config
from adakd_jax.hf.locate import ModelNotFoundError
from adakd_jax.hf.student import init_student
from adakd_jax.models.lora import split_adapters
from adakd_jax.training.prepare import load_teacher


class BaseNotFoundError(ModelNotFoundError):
    """The model that a run's adapters belong to cannot be reached."""


def frozen_base(run_dir: str) -> dict[str, Any]:
    """The student of a run as training started from it, without adapters, in its `base_dtype`.

    It is made again from what the run's settings name: a checkpoint, layers of the teacher, or a
    seed.

    Raises:
        BaseNotFoundError: what they name is not there any more.
    """
    config = run_config(run_dir)
    if config is None:
        raise BaseNotFoundError(
            f"{run_dir} has no config.yaml, which names the weights that its adapters belong to"
        )
    try:
        return _made_again(config)
    except ModelNotFoundError as error:
        raise BaseNotFoundError(
            f"checkpoints of {run_dir} hold adapters only, and the weights that they belong to "
            f"cannot be reached: {error}"
        ) from error


def _made_again(config: RunConfig) -> dict[str, Any]:
    teacher = None
    if isinstance(config.student, StudentLayers) and config.teacher is not None:
        teacher = load_teacher(config.teacher)
    # The adapters that it starts from are not needed: those of the checkpoint take their place.
    source = config.student.model_copy(update={"adapter": None})
    student = init_student(source, teacher, jax.random.key(config.seed))
    return split_adapters(student.params)[0]
