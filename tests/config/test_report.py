"""Every mistake stands in one report, with its place, its value and what would be valid."""

import random

import pytest

from adakd_jax.config import RunConfig
from adakd_jax.config.flags import read_flags
from adakd_jax.config.parse import parse, resolve
from adakd_jax.config.report import render
from adakd_jax.config.schema import all_keys

WRONG = """\
data:
  train: {kind: file, path: rows.jsonl, split: train}
  max_lenght: 12
teacher:
  path: 7
student:
  kind: layers
  layers: [0, x, 1]
distill:
  score: {kind: uniform}
  focus: {ratio: 0.5}
  divergence: {kind: reverse}
  temperature: idts
  learning_rate: 3
optimizer:
  clip_norm: -1
  warmup_steps: 99
training:
  steps: 10
  epochs: 3
  batch_rows: 8
  max_bad_steps: none
"""


def test_one_report_holds_everything(write, problems):
    found = problems(
        "--config",
        write(WRONG),
        "--training.micro_batch_rows",
        "3",
        "--optimizer.lerning_rate",
        "3",
    )
    assert set(found) == {
        "--optimizer.lerning_rate",
        "run_dir",
        "data.train.split",
        "data.max_lenght",
        "teacher.path",
        "student.layers[1]",
        "distill.focus.kind",
        "distill.focus.ratio",
        "distill.divergence.kind",
        "distill.temperature",
        "distill.learning_rate",
        "optimizer.clip_norm",
        "optimizer.warmup_steps",
        "training.steps",
        "training.max_bad_steps",
        "training.micro_batch_rows",
    }


@pytest.mark.parametrize(
    ("key", "line", "value", "valid"),
    [
        ("data.train.split", 2, "train", "only with kind tfds; keys here: path"),
        ("data.max_lenght", 3, 12, "did you mean max_length? keys here: train, validation"),
        ("teacher.path", 5, 7, 'text; in quotes: "7"'),
        ("student.layers[1]", 8, "x", "list of integer ≥ 0"),
        ("distill.focus.ratio", 11, 0.5, "only with kind top_ratio"),
        ("distill.divergence.kind", 12, "reverse", "did you mean reverse_kl?"),
        ("distill.temperature", 13, "idts", "mapping with kind one of fixed, idts"),
        (
            "distill.learning_rate",
            14,
            3,
            "did you mean distill.temperature.learning_rate or optimizer.learning_rate?",
        ),
        ("optimizer.clip_norm", 16, -1, "number > 0 or null"),
        ("training.max_bad_steps", 22, "none", "integer ≥ 1"),
    ],
)
def test_a_mistake_in_the_file_names_its_line(write, problems, key, line, value, valid):
    file = write(WRONG)
    problem = problems("--config", file)[key]
    (given,) = problem.given
    assert given.origin == f"{file}:{line}"
    assert given.value == value
    assert valid in problem.valid


def test_a_combination_names_every_key_and_its_origin(write, problems):
    file = write(WRONG)
    found = problems("--config", file, "--training.micro_batch_rows", "3")
    assert found["training.micro_batch_rows"].given == (
        ("training.micro_batch_rows", 3, "--training.micro_batch_rows"),
        ("training.batch_rows", 8, f"{file}:21"),
    )
    assert found["training.micro_batch_rows"].valid == "micro_batch_rows null or one of 1, 2, 4, 8"
    assert found["distill.focus.kind"].given == (
        ("distill.focus.kind", "latf", "default"),
        ("distill.score.kind", "uniform", f"{file}:10"),
    )


def test_a_missing_key_says_how_to_give_it(write, problems):
    found = problems("--config", write("run_dir: x\ndata:\n  max_length: 64\n"))
    assert "give --data.train, or add it below" in found["data.train"].valid
    assert found["data.train"].valid.endswith("x.yaml:2")
    assert found["training"].message == "is missing"


@pytest.mark.parametrize(
    ("argv", "key", "message", "valid"),
    [
        (["--optimizer.learning_rate", "fast"], "optimizer.learning_rate", "number", "number > 0"),
        (["--optimizer.learning_rate", "nan"], "optimizer.learning_rate", "finite", "number > 0"),
        (["--seed", "-1"], "seed", "greater", "integer ≥ 0"),
        (["--run_dir", ""], "run_dir", "at least 1 character", "text, not empty"),
        (["--export.max_shard_size", "5 apples"], "export.max_shard_size", "read", "KB, MB or GB"),
        (["--student.layers", "[0,"], "student.layers", "cannot be read", "JSON"),
        (["--student.layers", "2,1"], "student.layers", "did you mean 1,2", "list of integer"),
        (["--student.layers", "1,1"], "student.layers", "each layer once", "list of integer"),
        (["--data.template", "alpacca"], "data.template", "alpaca", "did you mean alpaca?"),
        (["--data.validation.path", "x"], "data.validation.kind", "missing", "file, tfds, hub"),
        (["--data.train.path", "null"], "data.train.path", "text or list", "text or list of text"),
        (["--distill", "3"], "distill", "mapping", "mapping"),
        (["--distill", "{"], "distill", "cannot be read", "mapping, as JSON"),
        (["--data.validation={"], "data.validation", "mapping", "kind one of file, tfds, hub"),
        (["--seed"], "--seed", "needs a value", "integer ≥ 0"),
        (["--seed", "--dry"], "--seed", "needs a value", "integer ≥ 0"),
        (["stray"], "stray", "is not a flag", "--KEY VALUE"),
        (["--learning_rate", "3"], "--learning_rate", "unknown flag", "--optimizer.learning_rate"),
        (["--optimizer.b3", "3"], "--optimizer.b3", "unknown flag", "--optimizer.b"),
    ],
)
def test_a_mistake_in_a_flag(problems, argv, key, message, valid):
    problem = problems(*argv)[key]
    assert message in problem.message
    assert valid in problem.valid


def test_an_unknown_option_of_a_newly_chosen_kind_is_refused(problems):
    found = problems("--distill.focus.kind", "all", "--distill.focus.ratio", "0.5")
    assert found["distill.focus.ratio"].given[0].origin == "--distill.focus.ratio"


def test_a_key_that_no_kind_has_survives_a_change_of_kind(write, values, problems):
    values["distill"]["focus"]["emma"] = 1
    found = problems("--config", write(values), "--distill.focus.kind", "top_ratio")
    assert set(found) == {"distill.focus.emma"}


def test_mistakes_end_the_program_with_2_and_no_traceback(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("--seed", "x", "--optimizer.eps", "0")
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith(
        "python -m adakd_jax.train: 2 mistakes in the settings; nothing was downloaded or started."
    )
    assert "  seed: should be" in captured.err
    assert "      given  0  (--optimizer.eps)\n      valid  number > 0\n" in captured.err
    assert max(map(len, captured.err.splitlines())) <= 100


def test_without_a_file_the_usage_is_shown(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(RunConfig, ["--seed", "1"], prog="train", description="")
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("usage: train --config FILE")


ODD = [
    "",
    "null",
    "-1",
    "nan",
    "x",
    "1,",
    "a=b",
    "[",
    "[[1]]",
    "{",
    "[{}]",
    '{"kind": [1]}',
    "latf",
]


def test_any_command_line_ends_in_settings_or_a_report(file):
    rng = random.Random(0)
    names = [key.name for key in all_keys(RunConfig)]
    for _ in range(150):
        argv = [f"--{rng.choice(names)}={rng.choice(ODD)}" for _ in range(rng.randint(1, 4))]
        config, found = resolve(RunConfig, read_flags(RunConfig, ["--config", file, *argv]))
        assert (config is None) == bool(found)
        assert all(problem.key in render("train", found) for problem in found)
