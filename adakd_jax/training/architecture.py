"""A model's config.json without its weights, and the check that a loaded model is the one that was
meant.
"""

from collections.abc import Mapping
from typing import Any

from adakd_jax.config import (
    RunConfig,
    StudentCheckpoint,
    StudentLayers,
    StudentPruned,
    TeacherConfig,
)
from adakd_jax.hf.config_file import check_not_quantised, read_config
from adakd_jax.hf.locate import CONFIG_FILES, ModelNotFoundError, locate
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.hf.student_config import chosen_config, select_layers
from adakd_jax.pruning.shape import planned_choice


def check_architecture(expected: Mapping[str, Any] | None, model: Pretrained, field: str) -> None:
    """Compare a loaded model with the keys its settings promise.

    Raises:
        ValueError: names every key that differs.
    """
    found = model.source.hf_config
    differing = [
        f"{key} is {found.get(key)!r}, expected {value!r}"
        for key, value in (expected or {}).items()
        if found.get(key) != value
    ]
    if differing:
        raise ValueError(
            f"{model.source.name} is not the model that {field}.architecture describes: "
            + "; ".join(differing)
        )


def model_configs(config: RunConfig) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """config.json of teacher (None without one, or if it is cached) and student, read without
    weights.

    Raises:
        ModelNotFoundError: a model is out of reach and its settings have no `architecture`.
        ModelFileError: a file cannot be read, or describes a model that is not supported.
    """
    teacher = None
    if config.teacher is not None and config.loads_teacher:
        teacher = _teacher_config(config.teacher)
    student = config.student
    if isinstance(student, StudentLayers):
        assert teacher is not None  # a check of the settings
        return teacher, select_layers(teacher, student.layers)
    if isinstance(student, StudentPruned):
        assert teacher is not None
        return teacher, chosen_config(teacher, planned_choice(student, teacher))
    if isinstance(student, StudentCheckpoint):
        return teacher, _reachable(student.path, student.revision, student.architecture)
    if isinstance(student.config, str):
        return teacher, _reachable(student.config, None, None, weights=False)
    return teacher, dict(student.config)


def _teacher_config(config: TeacherConfig) -> dict[str, Any]:
    if config.fallback is None:
        return _reachable(config.path, config.revision, config.architecture)
    try:
        return _reachable(config.path, config.revision, None)
    except ModelNotFoundError:
        return _reachable(config.fallback, config.revision, config.architecture)


def _reachable(
    path: str, revision: str | None, known: dict[str, Any] | None, *, weights: bool = True
) -> dict[str, Any]:
    """What is at `path`; where that is out of reach, what the settings say is there. `weights` says
    whether those beside it are to be read.
    """
    try:
        found = locate(path, revision, files=CONFIG_FILES)
    except ModelNotFoundError:
        if known is None:
            raise
        return dict(known)
    if found.suffix == ".gguf":
        # Only who has a GGUF file needs that library.
        from adakd_jax.hf.gguf import open_gguf

        with open_gguf(found) as file:
            return dict(file.hf_config)
    hf_config = read_config(found)
    if weights:
        check_not_quantised(hf_config, path)
    return hf_config
