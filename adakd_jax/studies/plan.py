"""The grid of a study as complete run configurations, all checked before anything is loaded."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from adakd_jax.config.overlay import overlay, with_default_kinds
from adakd_jax.config.report import Given, Path, Problem, problems_in
from adakd_jax.config.run import RunConfig
from adakd_jax.config.study import StudyConfig
from adakd_jax.config.yaml_file import read_yaml

RUNS = "runs"
FIRST = "first"
# What a run of a study is called and where it goes follows from the study.
_OWN = ("run_dir", "seed")
# With other data, another teacher or another measurement, numbers would not compare.
_COMMON = ("data", "teacher", "evaluation", "checkpoint", "logging", "export")
_COMMON_OF_FIRST = ("data", "teacher", "export")


class PlannedRun(NamedTuple):
    """One cell of the grid."""

    method: str
    seed: int
    config: RunConfig


def plan(study: StudyConfig) -> tuple[list[PlannedRun], list[Problem]]:
    """The runs of a study, seed by seed, so that a study cut short has compared all methods; its
    probes come last.

    Returns:
        the runs, and everything that is wrong with their settings; no runs if anything is. The key
        of a problem says which method has it.
    """
    file = read_yaml(study.base)
    if file.problems:
        return [], [problem._replace(key=f"base: {problem.key}") for problem in file.problems]
    lines = {path: f"{study.base}:{line}" for path, line in file.lines.items()}
    common = _common(study, file.values)
    origins = lines | _origins(study.run, "run")
    problems = _not_settable(study.run, "run", _OWN)
    problems += _problems(common | _place(study, study.baseline, 0), origins)
    if not problems and study.first is not None:
        problems += _first_problems(study, study.first, common, origins)
        common = _after_first(study, common)
    if not problems:
        for method, changes in study.methods.items():
            problems += _method_problems(study, method, changes, common, origins)
    if problems:
        return [], problems
    cells = [
        (method, seed)
        for seed in study.seeds
        for method in study.methods
        if method not in study.probes
    ]
    cells += [(method, study.seeds[0]) for method in study.methods if method in study.probes]
    runs = [PlannedRun(*cell, _config(study, *cell, common)) for cell in cells]
    problems = _unmeasurable(study, runs[0].config)
    return ([] if problems else runs), problems


def first_run(study: StudyConfig) -> RunConfig | None:
    """The run that all methods start from, of a study without problems; None if it has none."""
    if study.first is None:
        return None
    values = _first_values(study, study.first, _common(study, read_yaml(study.base).values))
    return RunConfig.model_validate(with_default_kinds(RunConfig, values))


def _common(study: StudyConfig, base: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of all runs."""
    return overlay(RunConfig, with_default_kinds(RunConfig, base), study.run)


def _first_values(
    study: StudyConfig, first: Mapping[str, Any], common: Mapping[str, Any]
) -> dict[str, Any]:
    place = {"run_dir": f"{study.output.rstrip('/')}/{FIRST}", "seed": 0, "export": {}}
    return overlay(RunConfig, common, first) | place


def _first_problems(
    study: StudyConfig,
    first: Mapping[str, Any],
    common: Mapping[str, Any],
    origins: Mapping[Path, str],
) -> list[Problem]:
    problems = _not_settable(first, FIRST, (*_OWN, *_COMMON_OF_FIRST))
    values = _first_values(study, first, common)
    found = _problems(values, {**origins, **_origins(first, FIRST)})
    return problems + [problem._replace(key=f"{FIRST}: {problem.key}") for problem in found]


def _after_first(study: StudyConfig, common: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of all methods, which start from what the first run has exported."""
    path = f"{study.output.rstrip('/')}/{FIRST}/export"
    student = {"kind": "checkpoint", "path": path, "adapter": None}
    return overlay(RunConfig, common, {"student": student})


def _config(study: StudyConfig, method: str, seed: int, common: Mapping[str, Any]) -> RunConfig:
    values = overlay(RunConfig, common, study.methods[method]) | _place(study, method, seed)
    return RunConfig.model_validate(with_default_kinds(RunConfig, values))


def _place(study: StudyConfig, method: str, seed: int) -> dict[str, Any]:
    folder = f"{study.output.rstrip('/')}/{RUNS}/{method}/seed{seed}"
    return {"run_dir": folder, "seed": seed}


def _method_problems(
    study: StudyConfig,
    method: str,
    changes: Mapping[str, Any],
    common: Mapping[str, Any],
    origins: Mapping[Path, str],
) -> list[Problem]:
    where = f"methods.{method}"
    problems = _not_settable(changes, where, (*_OWN, *_COMMON))
    values = overlay(RunConfig, common, changes) | _place(study, method, 0)
    found = _problems(values, {**origins, **_origins(changes, where)})
    return problems + [problem._replace(key=f"{where}: {problem.key}") for problem in found]


def _problems(values: Mapping[str, Any], origins: Mapping[Path, str]) -> list[Problem]:
    try:
        RunConfig.model_validate(with_default_kinds(RunConfig, values))
    except ValidationError as error:
        return problems_in(RunConfig, error, origins)
    return []


def _not_settable(changes: Mapping[str, Any], where: str, keys: tuple[str, ...]) -> list[Problem]:
    """What methods, or a whole study, cannot set."""
    problems = []
    for key in keys:
        if key not in changes:
            continue
        valid = "the same for all methods: give it under `run`, or in the base file"
        if key in _OWN:
            valid = "nothing: it follows from `output` and `seeds`"
        given = (Given(key, changes[key], where),)
        problems.append(Problem(f"{where}: {key}", "cannot be set here", given, valid))
    return problems


def _unmeasurable(study: StudyConfig, config: RunConfig) -> list[Problem]:
    """What all runs lack that comparing them needs."""
    data, problems = config.data, []
    if config.teacher is None:
        valid = (
            "run.teacher: what all students are compared with, even those that it does not teach"
        )
        problems.append(Problem("run.teacher", "no teacher to compare students with", (), valid))
    elif config.teacher.cache is not None:
        message = "a study compares its students with the teacher, which it loads in any case"
        given = (Given("run.teacher.cache", config.teacher.cache, "run"),)
        problems.append(Problem("run.teacher.cache", message, given, "run.teacher.cache null"))
    if study.measure == "quality" and not (data.validation or data.validation_fraction):
        valid = "run.data.validation (rows of their own) or run.data.validation_fraction above 0"
        problems.append(
            Problem("run.data.validation", "no held-out rows to compare methods on", (), valid)
        )
    return problems


def _origins(values: Mapping[str, Any], where: str, prefix: Path = ()) -> dict[Path, str]:
    """Every setting below `where`, by its path."""
    origins: dict[Path, str] = {}
    for name, value in values.items():
        origins[(*prefix, name)] = where
        if isinstance(value, Mapping):
            origins |= _origins(value, where, (*prefix, name))
    return origins
