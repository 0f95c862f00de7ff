"""Paths as users write them: `~` is the home folder everywhere, remote ones stay as they are."""

import ast
from pathlib import Path

import pytest
from etils import epath

import adakd_jax
from adakd_jax.user_path import local_path, user_path
from tests.hf.bucket import use_bucket


def test_a_tilde_is_the_home_folder_and_nothing_else_changes(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~") == epath.Path("/home/me")
    assert user_path("~/a/~b") == epath.Path("/home/me/a/~b")
    assert user_path(epath.Path("~/a")) == epath.Path("/home/me/a")
    assert user_path(Path("a/~/b")) == epath.Path("a/~/b")
    assert str(user_path("gs://bucket/~/a")) == "gs://bucket/~/a"
    assert str(user_path("~nobody-of-this-name/a")) == "~nobody-of-this-name/a"
    assert user_path("~root/a") == user_path("~root") / "a" != epath.Path("~root/a")


def test_what_must_be_local_says_which_setting_is_not(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("~/a", "output") == Path("/home/me/a")
    with pytest.raises(ValueError, match=r"output: 'gs://b/a' is remote; valid: a path on this"):
        local_path("gs://b/a", "output")


def test_a_folder_is_no_pattern_wherever_it_is(tmp_path, monkeypatch):
    bucket = use_bucket(monkeypatch)
    for name in ("run [1]/a.json", "run 1/b.json"):
        bucket.pipe_file(f"gs://bucket/{name}", b"{}")
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    for root in (str(tmp_path), "gs://bucket"):
        found = user_path(f"{root}/run [1]").glob("*.json")
        assert [str(file) for file in found] == [f"{root}/run [1]/a.json"]


def test_no_other_place_expands_a_path():
    files = Path(adakd_jax.__file__).parent.rglob("*.py")
    others = [file for file in files if file.name != "user_path.py"]
    calls = {
        file.name: node.attr
        for file in others
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("expanduser", "expandvars")
    }
    assert len(others) > 100 and not calls
