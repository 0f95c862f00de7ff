"""A run folder tells how the run was made, start by start, and refuses another run's settings."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from adakd_jax.config import RunConfig, provenance
from adakd_jax.config.provenance import (
    OtherRunError,
    check_same_run,
    check_writable,
    config_differences,
    read_starts,
    write_provenance,
)
from adakd_jax.config.yaml_file import read_yaml

ROOT = Path(__file__).parents[2]
COMMAND = ["python", "-m", "adakd_jax.train", "--config", "my runs/x.yaml"]


@pytest.fixture
def config(values, tmp_path):
    return RunConfig.model_validate({**values, "run_dir": str(tmp_path / "run")})


def changed(config, **stages):
    values = config.model_dump()
    for stage, change in stages.items():
        values[stage] = {**values[stage], **change} if isinstance(change, dict) else change
    return RunConfig.model_validate(values)


def test_what_is_written(config, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-from-the-environment")
    write_provenance(config.run_dir, config, COMMAND, devices=["cpu:0"])
    folder = Path(config.run_dir)
    assert RunConfig.model_validate(read_yaml(str(folder / "config.yaml")).values) == config
    (start,) = json.loads((folder / "run.json").read_text())
    assert start["command"] == "python -m adakd_jax.train --config 'my runs/x.yaml'"
    assert start["devices"] == ["cpu:0"]
    assert start["packages"]["jax"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", start["time"])
    assert set(start) >= {"python", "platform", "git", "changed_settings"}
    assert sorted(file.name for file in folder.iterdir()) == ["config.yaml", "run.json"]
    assert all("a-secret" not in file.read_text() for file in folder.iterdir())


def test_every_start_is_kept(config):
    assert read_starts(config.run_dir) == []
    write_provenance(config.run_dir, config, COMMAND)
    again = changed(config, logging={"every_steps": 5})
    write_provenance(config.run_dir, again, COMMAND)
    first, second = read_starts(config.run_dir)
    assert first["changed_settings"] == []
    assert second["changed_settings"] == ["logging.every_steps: 1 -> 5"]


def test_a_broken_record_names_its_file(config):
    write_provenance(config.run_dir, config, COMMAND)
    Path(config.run_dir, "run.json").write_text("[{")
    with pytest.raises(ValueError, match=r"run\.json: .*; valid: a JSON list"):
        read_starts(config.run_dir)


def test_differences(config):
    other = changed(
        config, seed=1, optimizer={"clip_norm": None}, distill={"focus": {"kind": "all"}}
    )
    differences = config_differences(config, other)
    assert differences[:3] == [
        "seed: 0 -> 1",
        "distill.focus.kind: latf -> all",
        "optimizer.clip_norm: 1 -> null",
    ]
    assert "distill.focus.ema: 0.9 -> absent" in differences
    assert config_differences(config, config.model_dump(mode="json")) == []


def test_another_run_is_refused(config):
    check_same_run(config.run_dir, config)
    write_provenance(config.run_dir, config, COMMAND)
    check_same_run(config.run_dir, config)
    other = changed(config, seed=1, training={"steps": 20}, logging={"every_steps": 5})
    with pytest.raises(OtherRunError) as refused:
        check_same_run(config.run_dir, other)
    message = str(refused.value)
    assert "  seed: 0 -> 1\n  training.steps: 10 -> 20\nvalid:" in message
    assert "logging" not in message


def test_a_folder_that_cannot_be_written_to_is_refused(config, tmp_path):
    check_writable(config.run_dir)
    assert list(Path(config.run_dir).iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"run_dir: .*file/run cannot be written to \(Not a dir"):
        check_writable(str(tmp_path / "file" / "run"))


def test_what_does_not_shape_the_student_may_change(config):
    write_provenance(config.run_dir, config, COMMAND)
    moved = changed(
        config,
        run_dir="elsewhere",
        checkpoint={"every_steps": 7},
        evaluation={"max_examples": 7},
        export={"path": "out"},
        data={"cache_dir": "cache"},
    )
    check_same_run(config.run_dir, moved)


def test_settings_newer_than_the_run_have_their_defaults(config):
    write_provenance(config.run_dir, config, COMMAND)
    file = Path(config.run_dir, "config.yaml")
    file.write_text(file.read_text().replace("  max_bad_steps: 10\n", ""))
    check_same_run(config.run_dir, config)


def test_a_setting_that_no_longer_exists_is_a_difference(config):
    write_provenance(config.run_dir, config, COMMAND)
    file = Path(config.run_dir, "config.yaml")
    file.write_text(file.read_text() + "bygone: 3\n")
    with pytest.raises(OtherRunError, match="bygone: 3 -> absent"):
        check_same_run(config.run_dir, config)


def test_the_revision_is_that_of_the_package(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    (package / "provenance.py").write_text("first = 1\n")
    assert provenance._git_revision() is None

    def git(*command):
        name = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", "-C", tmp_path, *name, *command], check=True, capture_output=True)

    git("init")
    assert provenance._git_revision() is None
    git("add", "package")
    git("commit", "-m", "first")
    found = provenance._git_revision()
    assert re.fullmatch("[0-9a-f]{40}", found["revision"])
    assert found["dirty"] is False
    (package / "provenance.py").write_text("second = 2\n")
    assert provenance._git_revision() == {**found, "dirty": True}


def test_the_versions_of_all_dependencies_are_recorded():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.match(r"[\w-]+", line).group() for line in project["dependencies"]}
    assert names <= set(provenance.PACKAGES)
