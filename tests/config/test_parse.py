"""YAML and flags become settings; flags win, and a new kind drops the old one's options."""

import pytest
import yaml
from pydantic import Field

from adakd_jax.config import (
    AllTokens,
    FileSource,
    HubSource,
    Idts,
    Latf,
    RunConfig,
    Stage,
    StudentCheckpoint,
    StudentRandom,
    TopRatio,
)
from adakd_jax.config.parse import parse


def test_a_file_alone(run, values):
    config, flags = run()
    assert config == RunConfig.model_validate(values)
    assert type(config) is RunConfig
    assert flags == {"dry_run": False}


def test_switches_are_reported_back(run):
    assert run("--dry_run")[1] == {"dry_run": True}


@pytest.mark.parametrize(
    ("argv", "read", "expected"),
    [
        (["--optimizer.learning_rate", "3e-4"], lambda c: c.optimizer.learning_rate, 3e-4),
        (["--optimizer.learning_rate=3e-4"], lambda c: c.optimizer.learning_rate, 3e-4),
        (["--optimizer.clip_norm", "null"], lambda c: c.optimizer.clip_norm, None),
        (["--logging.tensorboard", "false"], lambda c: c.logging.tensorboard, False),
        (["--student.layers", "1,3,4"], lambda c: c.student.layers, (1, 3, 4)),
        (["--student.layers", "[1, 3, 4]"], lambda c: c.student.layers, (1, 3, 4)),
        (["--run_dir", "gs://bucket/run"], lambda c: c.run_dir, "gs://bucket/run"),
        (["--run_dir", "123"], lambda c: c.run_dir, "123"),
        (["--teacher.revision", "1e5"], lambda c: c.teacher.revision, "1e5"),
        (["--data.train.path", "a-[0-9].jsonl"], lambda c: c.data.train.path, "a-[0-9].jsonl"),
        (["--data.train.path", "a,b"], lambda c: c.data.train.path, ("a", "b")),
        (["--data.train.path", '["a,b"]'], lambda c: c.data.train.path, "a,b"),
        (["--data.columns.input=-odd"], lambda c: c.data.columns.input, "-odd"),
        (["--seed", "1", "--seed", "2"], lambda c: c.seed, 2),
    ],
)
def test_a_flag_wins_over_the_file(run, argv, read, expected):
    config, _ = run(*argv)
    assert read(config) == expected
    assert config.training.steps == 10


def test_a_flag_inside_a_variant_keeps_the_files_other_values(run):
    config, _ = run("--distill.focus.min_ratio", "0.2")
    assert config.distill.focus == Latf(ema=0.9, monitor="all_tokens", min_ratio=0.2)


def test_another_kind_drops_the_options_of_the_old_one(run):
    assert run("--distill.focus.kind", "all")[0].distill.focus == AllTokens()
    chosen = run("--distill.focus.kind", "top_ratio", "--distill.focus.ratio", "0.5")[0]
    assert chosen.distill.focus == TopRatio(ratio=0.5)
    assert run("--distill.focus", '{"kind": "all"}')[0].distill.focus == AllTokens()


def test_another_kind_keeps_the_options_both_have(run, write, values):
    values["student"]["remat"] = "full"
    argv = ("--student.kind", "checkpoint", "--student.path", "owner/small")
    config, _ = run("--config", write(values), *argv)
    assert config.student == StudentCheckpoint(path="owner/small", remat="full")


def test_a_variant_without_kind_is_the_default_one(run):
    config, _ = run("--distill.temperature.strength", "0.3")
    assert config.distill.temperature == Idts(strength=0.3)


def test_what_a_default_sets_besides_its_kind_holds(write):
    class Root(Stage):
        student: StudentCheckpoint = Field(default=StudentCheckpoint(path="p", remat="dots"))

    argv = ["--student.revision", "r"]
    config, _ = parse(Root, argv, prog="x", description="", requires_config=False)
    assert config.student == StudentCheckpoint(path="p", remat="dots", revision="r")


def test_a_flag_inside_a_stage_wins_over_the_stage_as_json(run):
    config, _ = run("--distill.focus.ratio", "0.5", "--distill.focus", '{"kind": "top_ratio"}')
    assert config.distill.focus == TopRatio(ratio=0.5)


def test_null_removes_an_optional_stage(run, write, values):
    values["data"]["validation"] = {"kind": "file", "path": "held_out.jsonl"}
    file = write(values)
    assert run("--config", file)[0].data.validation == FileSource(path="held_out.jsonl")
    assert run("--config", file, "--data.validation", "null")[0].data.validation is None


def test_a_source_can_be_given_by_flags_alone(run):
    config, _ = run("--data.validation.kind", "hub", "--data.validation.name", "o/n")
    assert config.data.validation == HubSource(name="o/n")


def test_a_mapping_can_be_given_as_json(run):
    content = '{"model_type": "llama", "rms_norm_eps": 1e-5}'
    config, _ = run("--student.kind", "random", "--student.config", content)
    assert config.student == StudentRandom(config={"model_type": "llama", "rms_norm_eps": 1e-5})


def test_a_later_file_wins(run, file, write):
    second = write("distill: {focus: {kind: top_ratio}}\nseed: 7\n", "second.yaml")
    config, _ = run("--config", file, "--config", second)
    assert (config.seed, config.distill.focus) == (7, TopRatio())


def test_print_config_prints_what_reads_back_to_the_same(run, write, capsys):
    expected, _ = run("--optimizer.eps", "1e-12", "--teacher.revision", "1e5")
    with pytest.raises(SystemExit) as stop:
        run("--optimizer.eps", "1e-12", "--teacher.revision", "1e5", "--print_config")
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert list(yaml.safe_load(printed)) == list(RunConfig.model_fields)
    assert run("--config", write(printed, "printed.yaml"))[0] == expected


def test_a_command_without_a_file_and_with_positionals():
    class ExportConfig(Stage):
        run: str
        out_dir: str
        steps: int = 3

    argv = ["RUN", "--steps", "4", "OUT"]
    config, flags = parse(
        ExportConfig,
        argv,
        prog="x",
        description="",
        positionals=("run", "out_dir"),
        requires_config=False,
    )
    assert config == ExportConfig(run="RUN", out_dir="OUT", steps=4)
    assert flags == {}


def test_the_last_positional_takes_all_that_follow_if_it_is_a_list():
    class ReportConfig(Stage):
        title: str
        runs: tuple[str, ...] = Field(min_length=1)

    config, _ = parse(
        ReportConfig,
        ["T", "a", "--title", "U", "b,c"],
        prog="x",
        description="",
        positionals=("title", "runs"),
        requires_config=False,
    )
    assert config == ReportConfig(title="U", runs=("a", "b", "c"))


def test_the_environment_is_not_read(run, monkeypatch):
    monkeypatch.setenv("SEED", "99")
    monkeypatch.setenv("RUN_DIR", "elsewhere")
    config, _ = run()
    assert (config.seed, config.run_dir) == (0, "runs/x")
