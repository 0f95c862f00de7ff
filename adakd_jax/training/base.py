"""The frozen weights under the adapters of a run, which no checkpoint holds, found again."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from adakd_jax.config import RunConfig, StudentLayers, StudentPruned
from adakd_jax.eval.model import run_config
from adakd_jax.hf.locate import ModelNotFoundError
from adakd_jax.hf.student import init_student
from adakd_jax.models.lora import split_adapters
from adakd_jax.training.models import load_teacher
from adakd_jax.training.pruned import Kept, stored


class BaseNotFoundError(ModelNotFoundError):
    """The model that a run's adapters belong to cannot be reached."""


class OtherBaseError(ValueError):
    """Where the weights under a run's adapters were, there are others now."""


def base_checksum(base: Any) -> int | None:
    """The bits of all weights added up, modulo 2³²: the same on every mesh. None without a base.

    Scope: all processes of a run call this.
    """
    return None if base is None else int(_sum_of_bits(base))


@jax.jit
def _sum_of_bits(params: Any) -> Array:
    sums = [
        jax.lax.bitcast_convert_type(leaf, f"uint{8 * leaf.dtype.itemsize}").sum(dtype=jnp.uint32)
        for leaf in jax.tree.leaves(params)
    ]
    return jnp.stack(sums).sum(dtype=jnp.uint32)


def check_same_base(run_dir: str, recorded: int | None, found: int | None) -> None:
    """Compare checksums of the weights that a run's adapters were trained on and of those that are
    there now: a hub branch moves, a folder is written anew, and a `fallback` is another file.

    Raises:
        OtherBaseError: they differ.
    """
    if recorded != found:
        raise OtherBaseError(
            f"the adapters in the checkpoints of {run_dir} belong to other weights than are now "
            f"where its settings say (checksum {recorded}, found {found}); valid: the same files "
            "in their place, at the same revision, or a new run_dir"
        )


def frozen_base(run_dir: str, checksum: int | None) -> dict[str, Any]:
    """The student of a run as training started from it, without adapters, in its `base_dtype`.

    It is made again from what the run's settings name: a checkpoint, layers of the teacher, or a
    seed.

    Args:
        run_dir: folder of the run.
        checksum: of the weights that the run was trained on.

    Raises:
        BaseNotFoundError: what they name is not there any more.
        OtherBaseError: other weights are.
    """
    config = run_config(run_dir)
    if config is None:
        raise BaseNotFoundError(
            f"{run_dir} has no config.yaml, which names the weights that its adapters belong to"
        )
    try:
        base = _made_again(config)
    except ModelNotFoundError as error:
        raise BaseNotFoundError(
            f"checkpoints of {run_dir} hold adapters only, and the weights that they belong to "
            f"cannot be reached: {error}"
        ) from error
    check_same_base(run_dir, checksum, base_checksum(base))
    return base


def _made_again(config: RunConfig) -> dict[str, Any]:
    teacher, kept = None, Kept()
    if isinstance(config.student, StudentLayers | StudentPruned) and config.teacher is not None:
        teacher = load_teacher(config.teacher)
    if isinstance(config.student, StudentPruned):
        kept = stored(config)
    # Those of the checkpoint take the place of adapters that it starts from.
    student = init_student(
        config.student, teacher, jax.random.key(config.seed), held="frozen", **kept._asdict()
    )
    return split_adapters(student.params)[0]
