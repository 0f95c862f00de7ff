"""Runs that are killed, and saves and checkpoints that fail: the student comes out the same."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.training.checkpoint import Checkpoints
from adakd_jax.training.finite import NonFiniteWeightsError
from adakd_jax.training.integrity import DamagedCheckpointError, damage, has_checksums
from adakd_jax.training.saved_student import load_student
from benchmarks.faults.kills import killed_run
from benchmarks.faults.of_checkpoints import flip_a_bit, largest_file
from benchmarks.faults.workplace import POLICIES, ROOT, Workplace, saved_steps
from tests.training.save_without_room import small_state
from tests.training.tiny_run import run, weights

SMALL = {"evaluation": {"before": False, "generate_examples": 0, "token_snapshots": 0}}


@pytest.mark.slow
def test_a_run_killed_three_times_is_the_run_left_alone(tmp_path):
    # The programs are those of the run in this process, which keeps them there.
    place = Workplace(tmp_path, steps=12, compilations=Path(jax.config.jax_compilation_cache_dir))
    reference = place.folder / "reference"
    run(place.settings(reference, **POLICIES["distillm"]))
    killed = killed_run(
        place, "killed", reference, random.Random(23), print, kills=3, policy="distillm"
    )
    assert killed["difference"] is None, killed
    assert all(kill["expected"] for kill in killed["kills"]), killed
    # The last one waits for the export, which is over in an instant.
    assert sum(kill["hit"] for kill in killed["kills"]) >= 2, killed
    recorded = [
        {file.name: file.read_text() for file in (place.folder / name / "tokens").iterdir()}
        for name in ("reference", "killed")
    ]
    assert recorded[0] == recorded[1] and len(recorded[0]) == 5


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_used(settings, stop_after, tmp_path):
    whole, parts = settings("whole", **SMALL), settings("parts", **SMALL)
    run(whole)
    stop_after(4, signal.SIGTERM)
    with pytest.raises(SystemExit):
        run(parts)
    before, step = saved_steps(tmp_path / "parts")[-2:]
    folder = tmp_path / "parts" / "checkpoints" / f"step_{step}"
    assert damage(epath.Path(folder)) is None and has_checksums(epath.Path(folder))
    flip_a_bit(largest_file(folder))
    with pytest.raises(DamagedCheckpointError, match=rf"step {step} in .* is damaged: .*valid: "):
        load_student(parts.run_dir)
    shown = run(parts)
    assert f"checkpoint step_{step} is damaged: the content of default/" in shown
    assert f"continuing after step {before} of 6" in shown
    for one, other in zip(weights(whole), weights(parts), strict=True):
        assert np.array_equal(one, other)


def test_a_save_that_finds_no_room_says_what_is_left(tmp_path):
    script = [sys.executable, "-m", "tests.training.save_without_room", str(tmp_path)]
    said = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "the state after step 1 was not saved" in said.stdout, said.stderr
    assert "complete checkpoints: step_0" in said.stdout
    state = small_state()
    with Checkpoints(str(tmp_path)) as checkpoints:
        restored = checkpoints.restore(state)
    assert restored is not None
    for one, other in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert np.array_equal(one, other)


def test_a_teacher_with_nan_is_refused_by_name(settings, teacher, tmp_path):
    broken = load_pretrained(teacher)
    broken.params["final_norm"]["scale"] = broken.params["final_norm"]["scale"].at[3].set(jnp.nan)
    path = save_pretrained(broken, tmp_path / "broken")
    with pytest.raises(NonFiniteWeightsError) as refused:
        run(settings(teacher={"path": str(path)}))
    assert f"the teacher {path} has weights that are NaN or infinite, in 1 of" in str(refused.value)
    assert "final_norm.scale" in str(refused.value)
    student = {"kind": "checkpoint", "path": str(path)}
    with pytest.raises(NonFiniteWeightsError, match="the student"):
        run(settings(student=student))
