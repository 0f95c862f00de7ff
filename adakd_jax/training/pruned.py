"""What of the teacher a pruned student keeps: measured once a run, and written down."""

import json
from typing import Any

from jax.sharding import Mesh

from adakd_jax.axes import TokenBatch
from adakd_jax.config import RunConfig, StudentPruned
from adakd_jax.console import Console
from adakd_jax.hf.model_files import read_json
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.processes import first_says, is_first
from adakd_jax.pruning.calibration import calibration_batches
from adakd_jax.pruning.choice import Choice, choose, read, written
from adakd_jax.pruning.importance import measure_importance
from adakd_jax.pruning.removal import Removal, greedy_removal
from adakd_jax.pruning.shape import pruned_sizes
from adakd_jax.sharding import entered
from adakd_jax.training.chat import with_chat_template, with_date
from adakd_jax.training.data import read_data
from adakd_jax.user_path import user_path
from adakd_jax.whole_file import write_whole

FILE = "pruning.json"
# Of the student's settings, those that say what is kept.
_SETTINGS = set(StudentPruned.model_fields) - set(StudentPruned.__bases__[0].model_fields)
_NO_TEACHER = "student.kind is 'pruned', which needs a teacher to take it from"


def choice_of(
    config: RunConfig, teacher: Pretrained | None, mesh: Mesh | None, console: Console
) -> Choice:
    """What the student of a run keeps: what an earlier start has found, or measured now.

    Scope: all processes of a run call this, and get the same.

    Raises:
        ValueError: there is no teacher, sizes that it has not, or a file of other settings.
    """
    file = user_path(config.run_dir) / FILE
    if first_says(file.exists()):
        return stored_choice(config)
    if teacher is None:
        raise ValueError(_NO_TEACHER)
    source = config.student
    assert isinstance(source, StudentPruned)
    sizes = pruned_sizes(source, teacher.source.hf_config)
    batches = calibration_of(config, teacher, source.calibration_rows)
    with entered(mesh):
        importance = measure_importance(teacher, batches)
        removed = []
        if source.layers_by == "kl":
            removed = greedy_removal(teacher, batches, teacher.config.num_layers - sizes.layers)
    choice = choose(teacher.config, importance, sizes, left_after(teacher, removed))
    console.print(f"pruning  {importance.tokens:,} tokens of training rows were looked at")
    if is_first():
        found = {
            "settings": source.model_dump(mode="json", include=_SETTINGS),
            "tokens": importance.tokens,
            "influence": importance.influence.tolist(),
            "removed": [each._asdict() for each in removed],
            "choice": written(choice),
        }
        write_whole(file, json.dumps(found) + "\n")
    return choice


def left_after(teacher: Pretrained, removed: list[Removal]) -> list[int] | None:
    """The layers that are left; None where none were left out one by one."""
    gone = {each.layer for each in removed}
    return [n for n in range(teacher.config.num_layers) if n not in gone] if gone else None


def stored_choice(config: RunConfig) -> Choice:
    """What an earlier start of a run has found.

    Raises:
        ValueError: it is of other settings, or cannot be read.
    """
    file = user_path(config.run_dir) / FILE
    found: Any = read_json(file, "remove it, and the same command measures again")
    asked = config.student.model_dump(mode="json", include=_SETTINGS)
    if found["settings"] != asked:
        differing = [
            f"{key} is {found['settings'].get(key)!r} there and {value!r} here"
            for key, value in asked.items()
            if found["settings"].get(key) != value
        ]
        raise ValueError(
            f"{file} is of other settings: student.{'; student.'.join(differing)}; valid: the same "
            "settings, or another --run_dir"
        )
    return read(found["choice"])


def calibration_of(config: RunConfig, teacher: Pretrained, rows: int) -> list[TokenBatch]:
    """Packed training rows of a run, as its teacher reads them."""
    quiet = Console(quiet=True)
    told = with_chat_template(config.data, teacher, None, quiet)
    data = with_date(config, told).data
    examples, _ = read_data(data, told, config.seed, quiet)
    return calibration_batches(examples, data.max_length, rows)
