"""Whole runs under each policy, with AdaKD."""

import signal

import numpy as np
import pytest

from adakd_jax.policies import StudentResponses
from adakd_jax.training.records import read_records
from tests.training.tiny_run import latest, run, weights

SHORT = {"max_new_tokens": 8, "temperature": 1.0, "batch_size": 8}
POLICIES = {
    "gkd": {"kind": "gkd", "student_fraction": 0.6, "generation": SHORT},
    # Evaluated after every step, and any change is a rise: φ moves within six steps.
    "distillm": {
        "kind": "distillm",
        "capacity": 4,
        "loss_eps": 0.0,
        "rise": 0.9,
        "generation": SHORT,
    },
}
EVALUATION = {
    "every_steps": 1,
    "batch_rows": 2,
    "generate_examples": 0,
    "before": False,
    "token_snapshots": 0,
    "generation": SHORT,
}
TOLD = ("loss", "keep_ratio", "student_written", "replayed", "replay_probability")


def of(config):
    return [
        [record.get(name) for name in TOLD]
        for record in read_records(config.run_dir)
        if record["kind"] == "train"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_a_restart_is_exact(name, settings, stop_after):
    changes = {
        "policy": POLICIES[name],
        "evaluation": EVALUATION,
        "optimizer": {"learning_rate": 0.5, "schedule": "constant"},  # makes held-out loss rise
        "training": {"steps": 14, "batch_rows": 2},
    }
    whole, parts = settings("whole", **changes), settings("parts", **changes)
    # Rises are counted from the untrained student, which is measured for it.
    assert ("held out after step 0: " in run(whole)) == (name == "distillm")
    told = of(whole)
    written, replayed = ([row[index] for row in told] for index in (2, 3))
    assert 0 < sum(written) < len(told), told
    if name == "distillm":
        assert sum(replayed) > 0 and told[-1][-1] > 0, told
    stop_after(9, signal.SIGTERM)
    with pytest.raises(SystemExit):
        run(parts)
    assert latest(parts) < 14
    run(parts)
    assert of(parts) == told
    for one, other in zip(weights(whole), weights(parts), strict=True):
        assert np.array_equal(one, other)
    shares = [r["generating_share"] for r in read_records(whole.run_dir) if r["kind"] == "train"]
    assert all(0 <= share <= 1 for share in shares)
    assert [share > 0 for share in shares] == [bool(each) for each in written]


def test_time_of_writing_is_that_of_its_own_step(settings, monkeypatch):
    config = settings(
        "gkd",
        policy=POLICIES["gkd"],
        evaluation=EVALUATION | {"every_steps": None},
        checkpoint={"every_steps": 100},
    )
    of_step, recorded = StudentResponses.of_step, []

    def noted(self, params, replay, step, *rest):
        recorded.append(step and len(of(config)))  # nothing is there before the first
        return of_step(self, params, replay, step, *rest)

    monkeypatch.setattr(StudentResponses, "of_step", noted)
    run(config)
    assert recorded == list(range(len(recorded))) and len(recorded) > 3
    records = [r for r in read_records(config.run_dir) if r["kind"] == "train"]
    assert any(record["generating_share"] > 0 for record in records)
    assert all(record["generating_seconds"] <= record["seconds"] for record in records)


def test_seqkd_learns_what_the_teacher_wrote_and_writes_it_once(settings, tmp_path):
    changes = {
        "policy": {"kind": "seqkd", "generation": SHORT},
        "evaluation": EVALUATION | {"every_steps": None},
        "data": settings().data.model_dump() | {"cache_dir": str(tmp_path / "cache")},
    }
    config = settings("seqkd", **changes)
    shown = run(config)
    assert "seqkd    18 answers written" in shown
    assert "answers.jsonl: 18 rows" in shown
    file = next((tmp_path / "cache").glob("seqkd-*/answers.jsonl"))
    whole = file.read_text()
    lines = whole.splitlines(keepends=True)
    file.write_text("".join(lines[:7]) + lines[7][:9])  # as an interruption leaves it
    again = run(settings("again", **changes))
    assert "seqkd    11 answers written" in again and "7 were there already" in again
    assert file.read_text() == whole
    for one, other in zip(weights(config), weights(settings("again", **changes)), strict=True):
        assert np.array_equal(one, other)
