"""The help page names every flag with its meaning, and fits the terminal."""

import re

import pytest

from adakd_jax.config import RunConfig
from adakd_jax.config.help import help_page
from adakd_jax.config.schema import all_keys, choices, in_words, written
from adakd_jax.config.stage import stages_in
from adakd_jax.console import Console

DRY_RUN = {"dry_run": "build everything but the weights"}


def page(**options):
    options = {"width": 100, **options}
    return help_page(RunConfig, "python -m adakd_jax.train", "Distils.", DRY_RUN, **options)


def test_every_setting_is_documented():
    shown = set(re.findall(r"--([a-z][\w.]*)", page()))
    leaves = [key for key in all_keys(RunConfig) if not stages_in(key.field.annotation)]
    missing = {key.name for key in leaves} - shown
    # The options of a choice that stands twice are explained once.
    assert all(name.startswith("data.validation.") for name in missing)
    assert {"config", "dry_run", "print_config", "help"} <= shown
    assert all(key.field.description for key in leaves if not key.name.endswith(".kind"))


def test_default_unit_range_and_choices():
    text = page()
    assert "--distill.focus.kind {all,top_ratio,linear,cosine,latf,curriculum,random}" in text
    assert "[number in (0, 1]; default 0.1]" in text
    assert "[integer ≥ 1; default 100]" in text
    assert "[list of integer ≥ 0; required]" in text
    assert "optimizer steps between saves" in text


@pytest.mark.parametrize("width", [80, 100])
def test_lines_fit(width):
    long_flag = "--data.validation.kind"
    assert all(len(line) <= width or long_flag in line for line in page(width=width).splitlines())


def test_many_kinds_are_listed_below_their_flag():
    text = page(topic="distill", width=100)
    assert "--distill.score.kind KIND" in text and "KIND is one of hellinger, forward_kl" in text


def test_one_stage_alone():
    text = page(topic="optimizer")
    assert "--optimizer.eps" in text
    assert "--training.steps" not in text
    assert page(topic="optimiser") == text


def test_help_ends_with_0_and_survives_colours(run, capsys, monkeypatch):
    with pytest.raises(SystemExit) as stop:
        run("--help", "export")
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--export.max_shard_size" in printed
    monkeypatch.setattr(
        "adakd_jax.config.parse.Console", lambda **kw: Console(force_terminal=True, **kw)
    )
    with pytest.raises(SystemExit):
        run("-h", "export")
    coloured = capsys.readouterr().out
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == printed


def test_values_in_words():
    fields = {key.name: key.field for key in all_keys(RunConfig)}
    assert in_words(fields["optimizer.b1"]) == "number in [0, 1)"
    assert in_words(fields["optimizer.clip_norm"]) == "number > 0 or null"
    assert in_words(fields["data.max_length"]) == "integer ≥ 8"
    assert in_words(fields["student.config"]) == "text or mapping"
    assert choices(fields["student.compute_dtype"].annotation) == ("float32", "bfloat16", "null")
    assert choices(fields["data.train.path"].annotation) == ()
    assert [written(v) for v in (None, True, 1e-4, (1, 2), "a", "", 0.1 + 0.2)] == [
        "null",
        "true",
        "0.0001",
        "1,2",
        "a",
        "''",
        "0.30000000000000004",
    ]
