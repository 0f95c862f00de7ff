"""Whole runs without a teacher, and of methods that train something beside the student."""

import json
import signal

import jax
import numpy as np
import pytest

from adakd_jax.hf.load import load_pretrained
from adakd_jax.training.checkpoint import Checkpoints
from adakd_jax.training.dry_run import dry_run
from adakd_jax.training.records import read_records
from tests.training.tiny_run import STEPS, run, weights

FINE_TUNING = {"kd_weight": 0.0, "ce_weight": 1.0}
LEARNING = {
    "focus": {"kind": "curriculum"},
    "temperature": {"kind": "ctkd", "learning_rate": 0.05},
    "divergence": {"kind": "forward_kl"},
    "feature_weight": 1.0,
}


def _fine_tuning(settings, teacher, run_dir="run"):
    student = {"kind": "checkpoint", "path": str(teacher)}
    return settings(run_dir, teacher=None, student=student, distill=FINE_TUNING)


def test_a_model_is_fine_tuned_without_a_teacher(settings, teacher, tmp_path):
    config = _fine_tuning(settings, teacher)
    shown = run(config)
    assert "loading" not in shown and "\nteacher " not in shown and "exported" in shown
    records = list(read_records(config.run_dir))
    assert all("reverse_kl" not in record for record in records)
    before, after = (
        json.loads((tmp_path / "run" / "evaluation" / f"{name}.json").read_text())["nll"]
        for name in ("before", "after")
    )
    assert after < before
    exported = load_pretrained(tmp_path / "run" / "export")
    for one, other in zip(jax.tree.leaves(exported.params), weights(config), strict=True):
        assert np.array_equal(one, other)
    card = (tmp_path / "run" / "export" / "README.md").read_text()
    assert "fine-tuned with `adakd_jax`" in card and "Supervised fine-tuning" in card


def test_checkpoints_are_ranked_without_a_teacher(settings, teacher):
    config = _fine_tuning(settings, teacher)
    run(config)
    with Checkpoints(config.run_dir) as checkpoints:
        assert checkpoints.best_step in (3, STEPS)


def test_a_fine_tuned_model_teaches(settings, teacher, tmp_path):
    run(_fine_tuning(settings, teacher, "tuned"))
    config = settings("taught", teacher={"path": str(tmp_path / "tuned" / "export")})
    assert "exported" in run(config)


@pytest.mark.slow
def test_what_is_learned_beside_the_student_is_resumed_and_not_exported(
    settings, stop_after, tmp_path
):
    whole, parts = settings("whole", distill=LEARNING), settings("parts", distill=LEARNING)
    run(whole)
    stop_after(2, signal.SIGTERM)
    with pytest.raises(SystemExit):
        run(parts)
    run(parts)
    for one, other in zip(weights(whole), weights(parts), strict=True):
        assert np.array_equal(one, other)
    told = [
        [record["learned_temperature"] for record in read_records(c.run_dir) if "loss" in record]
        for c in (whole, parts)
    ]
    assert told[0] == told[1] and len(set(told[0])) == STEPS
    names = load_pretrained(tmp_path / "whole" / "export").params
    assert "projector" not in str(jax.tree_util.tree_structure(names))


@pytest.mark.parametrize("distill", [FINE_TUNING, LEARNING], ids=["fine-tuning", "learning"])
def test_dry_run(settings, teacher, distill):
    if distill is LEARNING:
        sizes = dry_run(settings(distill=distill))
        assert sizes["teacher"] > 0
    else:
        assert dry_run(_fine_tuning(settings, teacher))["teacher"] == 0
