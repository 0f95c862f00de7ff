"""What of the teacher a pruned student keeps: measured once a run, and written down."""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jax.sharding import Mesh
from safetensors.numpy import load, save

from adakd_jax.axes import TokenBatch
from adakd_jax.config import RunConfig, StudentPruned
from adakd_jax.console import Console
from adakd_jax.hf.model_files import read_json
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.hf.student_config import can_keep, chosen_config
from adakd_jax.models.families import decoder_config
from adakd_jax.models.size import parameter_count
from adakd_jax.processes import first_says, is_first
from adakd_jax.pruning.calibration import calibration_batches
from adakd_jax.pruning.choice import Choice, choose, in_words, most_influential, read, written
from adakd_jax.pruning.fit import fitted_kernels
from adakd_jax.pruning.importance import Importance, measure_importance
from adakd_jax.pruning.removal import Removal, greedy_removal
from adakd_jax.pruning.shape import pruned_sizes
from adakd_jax.sharding import entered
from adakd_jax.training.chat import with_chat_template, with_date
from adakd_jax.training.data import read_data
from adakd_jax.user_path import user_path
from adakd_jax.whole_file import write_whole

FILE, FITTED = "pruning.json", "pruning.safetensors"
# Of the student's settings, those that say what is kept.
_OF_ALL = set(StudentPruned.__bases__[0].model_fields)
_SETTINGS = set(StudentPruned.model_fields) - _OF_ALL - {"kind"}


class Kept(NamedTuple):
    """What is kept, and the kernels that were fitted to it, by the paths of their parameters."""

    choice: Choice | None = None
    fitted: Mapping[str, np.ndarray] | None = None


class Measured(NamedTuple):
    """How a choice was made: what was measured, and the layers left out one by one, if any."""

    importance: Importance
    removed: Sequence[Removal]
    kept: Kept


def kept_of_teacher(
    config: RunConfig, teacher: Pretrained, mesh: Mesh | None, console: Console
) -> Kept:
    """What the student of a run keeps: what an earlier start has found, or measured now.

    Scope: all processes of a run call this, and get the same.

    Raises:
        ValueError: sizes that the teacher has not, or a file of other settings.
    """
    if first_says((user_path(config.run_dir) / FILE).exists()):
        return stored(config)
    source = config.student
    assert isinstance(source, StudentPruned)
    batches = calibration_of(config, teacher, source.calibration_rows)
    with entered(mesh):
        found = measure(source, teacher, batches)
    assert found.kept.choice is not None
    console.print(
        f"pruning  {found.importance.tokens:,} tokens of training rows were looked at; kept are "
        f"{in_words(found.kept.choice)}",
        soft_wrap=True,
    )
    if is_first():
        _write(user_path(config.run_dir), source, teacher, found)
    return found.kept


def measure(source: StudentPruned, teacher: Pretrained, batches: Sequence[TokenBatch]) -> Measured:
    """What is kept of a teacher, by what it does on some rows.

    Raises:
        ValueError: sizes that it has not, or rows without a token.
    """
    sizes = pruned_sizes(source, teacher.source.hf_config)
    importance, removed = measure_importance(teacher, batches), []
    whole = teacher.config.num_layers
    makes_a_model = functools.partial(can_keep, teacher.source.hf_config)
    if source.layers_by == "kl":
        removed = greedy_removal(teacher, batches, whole - sizes.layers, makes_a_model)
        layers = sorted(set(range(whole)) - {each.layer for each in removed})
    else:
        layers = most_influential(importance.influence, sizes.layers, makes_a_model)
    choice = choose(teacher.config, importance, sizes, layers)
    fitted = fitted_kernels(teacher, batches, choice) if source.fit else {}
    return Measured(importance, removed, Kept(choice, fitted))


def stored(config: RunConfig) -> Kept:
    """What an earlier start of a run has found.

    Raises:
        ValueError: it is of other settings, or cannot be read.
    """
    folder = user_path(config.run_dir)
    again = "remove it, and the same command measures again"
    found: Any = read_json(folder / FILE, again)
    asked = config.student.model_dump(mode="json", include=_SETTINGS)
    differing = [
        f"student.{key} is {found['settings'].get(key)!r} there and {value!r} here"
        for key, value in asked.items()
        if found["settings"].get(key) != value
    ]
    if differing:
        raise ValueError(
            f"{folder / FILE} is of other settings: {'; '.join(differing)}; valid: the same "
            "settings, or another --run_dir"
        )
    kernels = folder / FITTED
    return Kept(read(found["choice"]), load(kernels.read_bytes()) if found["fitted"] else {})


def _write(folder: epath.Path, source: StudentPruned, teacher: Pretrained, found: Measured) -> None:
    """The choice last: where it is, all is."""
    kept = found.kept
    assert kept.choice is not None
    folder.mkdir(parents=True, exist_ok=True)
    if kept.fitted:
        (folder / FITTED).write_bytes(save(dict(kept.fitted)))
    student = decoder_config(chosen_config(teacher.source.hf_config, kept.choice))
    values = {
        "parameters": {
            "teacher": parameter_count(teacher.config),
            "student": parameter_count(student),
        },
        "settings": source.model_dump(mode="json", include=_SETTINGS),
        "tokens": found.importance.tokens,
        "influence": found.importance.influence.tolist(),
        "removed": [each._asdict() for each in found.removed],
        "choice": written(kept.choice),
        "fitted": sorted(kept.fitted or {}),
    }
    write_whole(folder / FILE, json.dumps(values) + "\n")


def calibration_of(config: RunConfig, teacher: Pretrained, rows: int) -> list[TokenBatch]:
    """Packed training rows of a run, as its teacher reads them."""
    quiet = Console(quiet=True)
    told = with_chat_template(config.data, teacher, None, quiet)
    data = with_date(config, told).data
    examples, _ = read_data(data, told, config.seed, quiet)
    return calibration_batches(examples, data.max_length, rows)
