"""Runs in awkward places: whole paths with `~`, and names that could be patterns."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest

from adakd_jax.eval.model import open_model
from adakd_jax.export import main as export
from adakd_jax.generate import main as generate
from adakd_jax.report import main as report
from adakd_jax.training.records import read_records
from tests.training.tiny_run import STEPS, latest, run, weights


def test_every_path_of_a_run_may_begin_with_a_tilde(
    make_settings, teacher, rows, tmp_path, monkeypatch, capsys
):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir(), here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    shutil.copytree(teacher, home / "teacher")
    shutil.copy(rows, home / "rows.jsonl")
    config = make_settings("~/run", teacher={"path": "~/teacher"}, export={"path": "~/exported"})
    changed = {"train": {"kind": "file", "path": "~/rows.jsonl"}, "cache_dir": "~/cache"}
    values = config.model_dump()
    config = type(config).model_validate(values | {"data": values["data"] | changed})
    run(config)
    assert len(read_records("~/run")) == STEPS + 2
    open_model("~/run")
    report(["~/run"])
    export(["~/run", "~/again"])
    files = ["--model", "~/exported", "--prompts", "~/rows.jsonl", "--output", "~/answers/a.jsonl"]
    limits = ["--max_rows", "1", "--max_prompt_length", "48", "--generation.max_new_tokens", "4"]
    generate([*files, *limits, "--template", "chat", "--cache_dir", "~/cache"])
    assert "written" in capsys.readouterr().out
    assert json.loads((home / "answers" / "a.jsonl").read_text())["instruction"]
    made = {"run", "exported", "again", "cache", "answers", "teacher", "rows.jsonl"}
    assert {path.name for path in home.iterdir() if not path.name.startswith(".")} == made
    assert (home / "run" / "metrics.jsonl").is_file() and (home / "run" / "report.html").is_file()
    assert (home / "again" / "config.json").is_file()
    assert not list(here.iterdir())


def test_a_run_in_a_folder_with_brackets_continues_and_exports(settings, stop_after, tmp_path):
    """Of such a folder, etils finds nothing, and orbax would leave what nobody can read."""
    config = settings("exp [v1]/run [*?]")
    stop_after(2, signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        run(config)
    assert stopped.value.code == 0 and latest(config) in (2, 3)
    assert "continuing after step" in run(config)
    exported = open_model(config.run_dir)
    for one, other in zip(jax.tree.leaves(exported.params), weights(config), strict=True):
        assert np.array_equal(one, other)
    report([config.run_dir])
    assert (tmp_path / "exp [v1]" / "run [*?]" / "report.html").is_file()
