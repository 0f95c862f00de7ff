"""YAML is read with the line of every value, scalars as in YAML 1.2, mistakes with their place."""

import pytest
import yaml

from adakd_jax.config import OptimizerConfig, StudentRandom
from adakd_jax.config.yaml_file import dump_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5E3", 5e3),
        ("-.5", -0.5),
        ("1.", 1.0),
        (".inf", float("inf")),
        ("12", 12),
        ("012", "012"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("yes", "yes"),
        ("off", "off"),
        ("No", "No"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1e-4'", "1e-4"),
        ("[1, 2]", [1, 2]),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_scalars(write, text, value):
    assert read_yaml(write(f"key: {text}\n")).values == {"key": value}


def test_numbers_and_switches_reach_the_settings(run, write, values):
    del values["optimizer"]
    lines = "optimizer: {learning_rate: 1e-4, eps: 1E-9}\nlogging: {tensorboard: off}\n"
    config, _ = run("--config", write(yaml.safe_dump(values) + lines))
    assert config.optimizer.learning_rate == 1e-4
    assert config.optimizer.eps == 1e-9
    assert config.logging.tensorboard is False


def test_lines(write):
    file = read_yaml(write("a:\n  b: 1\n  c:\n    - x\n    - y\nd: {e: 2,\n  f: 3}\n"))
    assert file.problems == []
    assert file.lines == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", 0): 4,
        ("a", "c", 1): 5,
        ("d",): 6,
        ("d", "e"): 6,
        ("d", "f"): 7,
    }


def test_a_repeated_key_is_a_mistake(write):
    path = write("a:\n  b: 1\n  c: 2\n  b: 3\n")
    (problem,) = read_yaml(path).problems
    assert problem.key == "a.b"
    assert problem.given == (("a.b", 1, f"{path}:2"), ("a.b", 3, f"{path}:4"))


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", 2, "cannot start any token"),
        ("a: b: c\n", 1, "mapping values are not allowed"),
        ("a: 1\nb: !!python/name:os.system x\n", 2, "could not determine a constructor"),
        ("a: *nothing\n", 1, "undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "expected a single document"),
    ],
)
def test_a_syntax_error_names_line_and_reason(write, problems, text, line, what):
    path = write(text)
    (problem,) = problems("--config", path).values()
    assert problem.key == f"{path}:{line}"
    assert what in problem.message


def test_a_file_that_is_no_mapping(write, problems):
    (problem,) = problems("--config", write("- a\n- b\n")).values()
    assert problem.message == "holds no settings"


def test_an_empty_file_lacks_the_required_keys(write, problems):
    found = problems("--config", write("# nothing\n"))
    assert {"run_dir", "data", "teacher", "student", "training"} == set(found)


def test_a_missing_file_and_its_near_name(write, problems, tmp_path):
    write("a: 1\n", "gpt2.yaml")
    (problem,) = problems("--config", str(tmp_path / "gtp2.yaml")).values()
    assert problem.message == "no such file"
    assert problem.valid == f"did you mean {tmp_path / 'gpt2.yaml'}?"
    (problem,) = problems("--config", str(tmp_path)).values()
    assert problem.message.startswith("cannot be read")


def test_other_mistakes_join_an_unreadable_file(problems, tmp_path):
    found = problems("--config", str(tmp_path / "none.yaml"), "--sed", "1")
    assert set(found) == {f"--config {tmp_path / 'none.yaml'}", "--sed"}


def test_texts_that_look_like_numbers_survive_writing(write):
    content = {"a": "1e5", "b": "off", "c": "012", "d": "null", "e": [1.5, "x"], "f": 1e-7, "g": ""}
    text = dump_yaml(StudentRandom(config=content))
    assert read_yaml(write(text)).values["config"] == content
    assert read_yaml(write(dump_yaml(OptimizerConfig()))).values["eps"] == 1e-8
