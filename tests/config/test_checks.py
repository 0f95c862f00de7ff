"""Combinations that cannot work are refused, in Python as in YAML; their neighbours pass."""

import pytest
from pydantic import TypeAdapter, ValidationError

from adakd_jax.config import (
    DataConfig,
    DistillConfig,
    ExportConfig,
    FileSource,
    OptimizerConfig,
    RunConfig,
    StudentLayers,
    TeacherConfig,
    TrainingConfig,
    UniformScore,
)
from adakd_jax.config.evaluate import EvaluateCommand
from adakd_jax.config.plan import PlanConfig
from adakd_jax.config.policy import Policy
from adakd_jax.config.remarks import remarks
from adakd_jax.config.stage import COMBINATION, Stage, flatten, known_values, stages_in
from adakd_jax.config.study import StudyConfig
from adakd_jax.config.teacher_cache import CacheCommand
from adakd_jax.generate import GenerateCommand

CASES = [
    # (settings in conflict, the key that is named, part of what is valid, a change that mends it)
    (
        {"training.micro_batch_rows": 3},
        "training.micro_batch_rows",
        "1, 2, 4, 8",
        {"training.micro_batch_rows": 4},
    ),
    ({"training.epochs": 2.0}, "training.steps", "one of the two", {"training.steps": None}),
    (
        {"training.batch_rows": None},
        "training.batch_rows",
        "one of the two",
        {"training.batch_examples": 8},
    ),
    (
        {"training.batch_examples": 8},
        "training.batch_rows",
        "one of the two",
        {"training.batch_rows": None},
    ),
    (
        {"data.max_prompt_length": 512},
        "data.max_prompt_length",
        "below 512",
        {"data.max_prompt_length": 511},
    ),
    (
        {"data.validation_fraction": 0.1, "data.validation": {"kind": "file", "path": "v"}},
        "data.validation_fraction",
        "validation null",
        {"data.validation_fraction": 0.0},
    ),
    (
        {"optimizer.final_learning_rate": 1.0},
        "optimizer.final_learning_rate",
        "0 to 0.0001",
        {"optimizer.final_learning_rate": 1e-4},
    ),
    (
        {"optimizer.warmup_steps": 10},
        "optimizer.warmup_steps",
        "0 to 9",
        {"optimizer.warmup_steps": 9},
    ),
    (
        {"optimizer.warmup_steps": 9, "optimizer.schedule": "wsd"},
        "optimizer.warmup_steps",
        "0 to 8",
        {"optimizer.warmup_steps": 8},
    ),
    (
        {"distill.score": {"kind": "uniform"}},
        "distill.focus.kind",
        "hellinger",
        {"distill.focus": {"kind": "all"}},
    ),
    ({"distill.kd_weight": 0}, "distill.kd_weight", "above 0", {"distill.ce_weight": 0.1}),
    (
        {"evaluation.every_steps": 5},
        "evaluation.every_steps",
        "data.validation",
        {"data.validation_fraction": 0.1},
    ),
    (
        {"export.path": "./runs/x/"},
        "export.path",
        "another folder",
        {"export.path": "runs/x/export"},
    ),
    (
        {"export.path": "gs://b/x/", "run_dir": "gs://b/x"},
        "export.path",
        "another folder",
        {"run_dir": "gs://b/y"},
    ),
    (
        {"teacher.revision": "main", "teacher.path": "package:p/m.gguf"},
        "teacher.revision",
        "null",
        {"teacher.path": "owner/name"},
    ),
    (
        {"student": {"kind": "checkpoint", "path": "./m", "revision": "main"}},
        "student.revision",
        "null",
        {"student.revision": None},
    ),
    (
        {"teacher.cache": "c", "policy.kind": "gkd", "data.template": "chat"},
        "teacher.cache",
        "policy.kind offline",
        {"policy.kind": "offline"},
    ),
    (
        {"teacher.cache": "c", "distill.feature_weight": 1.0},
        "teacher.cache",
        "feature_weight 0",
        {"distill.feature_weight": 0.0},
    ),
    (
        {"teacher.cache": "c", "distill.kd_weight": 0.0, "distill.ce_weight": 1.0},
        "teacher.cache",
        "kd_weight above 0",
        {"distill.kd_weight": 0.5},
    ),
    (
        {"teacher.cache": "c", "distill.temperature.kind": "dtkd"},
        "teacher.cache",
        "one of fixed, idts, entropy, ctkd",
        {"distill.temperature.kind": "ctkd"},
    ),
    (
        {"policy.kind": "distillm", "data.template": "chat", "data.validation_fraction": 0.1,
         "evaluation.every_steps": 10},
        "policy.kind",
        "a smaller evaluation.every_steps",
        {"evaluation.every_steps": 9},
    ),
]  # fmt: skip


def put(values, key, value):
    *stages, name = key.split(".")
    for stage in stages:
        values = values.setdefault(stage, {})
    values[name] = value


def conflicts(values):
    with pytest.raises(ValidationError) as caught:
        RunConfig.model_validate(values)
    return [error for error in caught.value.errors() if error["type"] == COMBINATION]


@pytest.mark.parametrize(("settings", "key", "valid", "mended"), CASES)
def test_a_conflict_is_refused_and_its_neighbour_passes(values, settings, key, valid, mended):
    for name, value in settings.items():
        put(values, name, value)
    (error,) = conflicts(values)
    assert ".".join(error["loc"]) == key
    assert valid in error["ctx"]["valid"]
    for name, value in mended.items():
        put(values, name, value)
    RunConfig.model_validate(values)


def test_conflicts_are_found_however_wrong_the_rest_is(values):
    put(values, "training.micro_batch_rows", 3)
    put(values, "training.epochs", 2.0)
    put(values, "training.max_bad_steps", 0)
    put(values, "optimizer.warmup_steps", "10")
    put(values, "optimizer.eps", -1)
    put(values, "distill.score.kind", "uniform")
    put(values, "distill.focus.ema", 5)
    del values["run_dir"]
    assert {".".join(error["loc"]) for error in conflicts(values)} == {
        "training.micro_batch_rows",
        "training.steps",
        "optimizer.warmup_steps",
        "distill.focus.kind",
    }


def test_a_check_waits_for_valid_values(values):
    put(values, "training.micro_batch_rows", "three")
    put(values, "training.batch_rows", 7)
    with pytest.raises(ValidationError) as caught:
        RunConfig.model_validate(values)
    assert [error["loc"] for error in caught.value.errors()] == [("training", "micro_batch_rows")]


def test_stages_built_in_python_are_checked():
    with pytest.raises(ValidationError, match="give exactly one of steps and epochs, not neither"):
        TrainingConfig(batch_rows=4)
    with pytest.raises(ValidationError, match="do not divide a step's 4 rows"):
        TrainingConfig(steps=1, batch_rows=4, micro_batch_rows=3)
    with pytest.raises(ValidationError, match="valid: final_learning_rate from 0 to 1e-09"):
        OptimizerConfig(learning_rate=1e-9)
    OptimizerConfig(learning_rate=1e-9, schedule="constant")


def test_a_run_built_in_python_is_checked():
    def run(**distill):
        return RunConfig(
            run_dir="runs/x",
            data=DataConfig(train=FileSource(path="a")),
            teacher=TeacherConfig(path="t"),
            student=StudentLayers(layers=(0,)),
            training=TrainingConfig(steps=1, batch_rows=1),
            distill=DistillConfig(**distill),
        )

    assert run().export == ExportConfig()
    with pytest.raises(ValidationError, match="equal scores cannot be ranked"):
        run(score=UniformScore())


def test_remarks_name_what_has_no_effect(values):
    (remark,) = remarks(RunConfig.model_validate(values))
    assert remark.startswith("no held-out rows")
    put(values, "data.validation_fraction", 0.1)
    assert remarks(RunConfig.model_validate(values)) == []
    put(values, "data.template", "text")
    put(values, "distill.kd_weight", 0)
    put(values, "distill.ce_weight", 1)
    assert len(remarks(RunConfig.model_validate(values))) == 2


def test_known_values_are_those_that_are_valid_alone(values):
    complete = flatten(RunConfig.model_validate(values))
    assert known_values(RunConfig, values) == complete
    assert complete["distill.focus.ema"] == 0.9
    assert "distill.focus.ratio" not in complete

    put(values, "optimizer.learning_rate", "-1")
    put(values, "distill.focus.kind", "no such kind")
    known = known_values(RunConfig, values)
    missing = set(complete) - set(known)
    assert {"optimizer", "optimizer.learning_rate", "distill", "distill.focus"} <= missing
    assert known["optimizer.eps"] == 1e-8
    assert known_values(RunConfig, "no mapping") == {}


def test_the_cache_command_needs_a_teacher_and_a_folder(values):
    def refused(found):
        with pytest.raises(ValidationError) as caught:
            CacheCommand.model_validate(found)
        return str(caught.value)

    assert "--teacher.cache FOLDER" in refused(values)
    put(values, "teacher.cache", "gs://bucket/cache")
    assert "a folder of this machine" in refused(values)
    put(values, "teacher.cache", "caches/x")
    assert CacheCommand.model_validate(values).top_k == 64
    put(values, "policy.kind", "seqkd")
    assert "policy.kind offline" in refused(values)
    without = values | {"teacher": None, "student": {"kind": "checkpoint", "path": "owner/s"}}
    assert "there is no teacher to keep anything of" in refused(without)


@pytest.mark.parametrize("kind", ["seqkd", "gkd", "distillm"])
def test_a_policy_samples_where_nothing_else_is_said(kind):
    """In Python as in YAML: what is given of `generation` leaves the rest as the policy has it."""
    policy = TypeAdapter(Policy)
    whole = policy.validate_python({"kind": kind}).generation
    partly = policy.validate_python({"kind": kind, "generation": {"max_new_tokens": 9}}).generation
    assert whole.temperature == 1.0
    assert partly == whole.model_copy(update={"max_new_tokens": 9})


def test_no_default_differs_from_its_stage():
    """Or settings that are given in part would fall back to others than those left out whole."""
    commands = (RunConfig, CacheCommand, PlanConfig, StudyConfig, EvaluateCommand, GenerateCommand)
    for stage in stages_below(*commands):
        for name, field in stage.model_fields.items():
            default = field.get_default(call_default_factory=True)
            if isinstance(default, Stage):
                assert default == type(default)(), f"{stage.__name__}.{name}"


def stages_below(*stages):
    found = set(stages)
    for stage in stages:
        below = (stages_in(field.annotation) for field in stage.model_fields.values())
        found |= stages_below(*(inner for each in below for inner in each.values()))
    return found
