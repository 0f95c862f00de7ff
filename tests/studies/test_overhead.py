"""Seconds and memory of steps: rounds that add up over starts, ratios over the baseline."""

import json

import pytest

from adakd_jax.config.provenance import OtherRunError
from adakd_jax.studies.overhead_report import Overheads, overhead_lines
from tests.studies.tiny_study import METHODS, make_study, start


def overhead(base, output, rounds, **changes):
    sizes = {"rounds": rounds, "steps": 1}
    return make_study(base, output, measure="overhead", overhead=sizes, **changes)


def test_rounds_are_measured_once_and_compared_with_the_baseline(base, tmp_path):
    start(overhead(base, tmp_path, 1))
    first = json.loads((tmp_path / "overhead.json").read_text())["rounds"]
    shown = start(overhead(base, tmp_path, 2))
    stored = json.loads((tmp_path / "overhead.json").read_text())
    assert len(first) == 1 and len(stored["rounds"]) == 2 and stored["rounds"][0] == first[0]
    assert "round 1 of 2" not in shown and "round 2 of 2" in shown
    plain, adakd = overhead_lines(
        overhead(base, tmp_path, 2), Overheads(stored["memory"], stored["rounds"])
    )
    assert plain.ratio == (1.0, 1.0, 1.0) and plain.temporaries_ratio == 1.0
    assert adakd.seconds[1] <= adakd.seconds[0] <= adakd.seconds[2]
    assert adakd.temporaries_ratio > 0.5 and adakd.arguments > plain.arguments  # LATF has a state
    text = (tmp_path / "report.md").read_text()
    assert "1.000× [1.000, 1.000]" in text and "| AdaKD |" in text
    for name in ("methods.csv", "overhead.png"):
        assert 0 < (tmp_path / name).stat().st_size < 150_000
    with pytest.raises(OtherRunError, match=r"optimizer\.b1"):
        start(overhead(base, tmp_path, 3, run={"optimizer": {"b1": 0.5}}))
    with pytest.raises(OtherRunError, match="is of other methods: plain, AdaKD"):
        start(overhead(base, tmp_path, 3, methods={**METHODS, "more": {}}))


def test_ratios_are_taken_within_a_round(study):
    memory = {name: {"temporaries": 2**30, "arguments": 2**30} for name in METHODS}
    memory["AdaKD"]["temporaries"] *= 3
    rounds = [{"plain": 1.0, "AdaKD": 2.0}, {"plain": 10.0, "AdaKD": 15.0}]
    _, line = overhead_lines(study(measure="overhead"), Overheads(memory, rounds))
    assert line.ratio == (1.75, 1.5, 2.0)
    assert line.seconds == (8.5, 2.0, 15.0)
    assert line.temporaries_ratio == 3.0 and line.arguments == 1.0
