"""Whole runs on a tiny model: from settings to the exported student, through every kind of stop."""

import io
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.config.provenance import OtherRunError
from adakd_jax.config.schedules import ScheduleError
from adakd_jax.console import Console
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.training.checkpoint import Checkpoints
from adakd_jax.training.dry_run import dry_run
from adakd_jax.training.loop import TrainingDivergedError
from adakd_jax.training.models import vocabulary_note
from adakd_jax.training.prepare import prepare
from adakd_jax.training.records import read_records
from adakd_jax.training.saved_student import load_student
from tests.hf.tiny import TINY_LLAMA, make_pretrained
from tests.training.tiny_run import STEPS, latest, run, weights


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_continues_bit_for_bit(settings, stop_after, number):
    whole, parts = settings("whole"), settings("parts")
    shown = run(whole)
    assert "exported" in shown and "student after" in shown
    stop_after(2, number)
    with pytest.raises(SystemExit) as stopped:
        run(parts)
    assert stopped.value.code == 0
    assert latest(parts) in (2, 3)
    assert "continuing after step" in run(parts)
    for one, other in zip(weights(whole), weights(parts), strict=True):
        assert np.array_equal(one, other)
    told = ("step", "kind", "loss", "keep_ratio", "latf_ema", "reverse_kl", "grad_norm")
    first, second = (
        [{key: record.get(key) for key in told} for record in read_records(config.run_dir)]
        for config in (whole, parts)
    )
    assert first == second and len(first) == STEPS + 2


def test_a_finished_run_leaves_a_student_that_loads(settings, tmp_path):
    config = settings()
    run(config)
    exported = load_pretrained(tmp_path / "run" / "export")
    assert exported.config.num_layers == 2
    for one, other in zip(jax.tree.leaves(exported.params), weights(config), strict=True):
        assert np.array_equal(one, other)
    card = (tmp_path / "run" / "export" / "README.md").read_text()
    assert "reverse KL" in card and "license: mit" not in card
    before, after = (
        json.loads((tmp_path / "run" / "evaluation" / f"{name}.json").read_text())
        for name in ("before", "after")
    )
    assert after["reverse_kl"] < before["reverse_kl"]
    for name, (low, high) in after["intervals"].items():
        assert low <= after[name] <= high, name
    assert "reverse_kl" in after["intervals"]
    assert read_records(config.run_dir)[0]["host_peak_gib"] > 0
    again = run(config)
    assert "step 1/" not in again and "exported" in again


def test_a_half_written_checkpoint_is_not_picked_up(settings, stop_after, tmp_path):
    config = settings()
    stop_after(2, signal.SIGTERM)
    with pytest.raises(SystemExit):
        run(config)
    folder = tmp_path / "run" / "checkpoints"
    step = latest(config)
    half = folder / f"step_{STEPS}.orbax-checkpoint-tmp-7"
    half.mkdir()
    (half / "default").mkdir()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "kind": "tr')
    assert f"continuing after step {step} of {STEPS}" in run(config)
    assert latest(config) == STEPS
    steps = [record["step"] for record in read_records(config.run_dir) if record["kind"] == "train"]
    assert steps == list(range(1, STEPS + 1))


def test_embeddings_of_one_tokenizer_may_be_padded_differently():
    short, long = (make_pretrained(TINY_LLAMA | {"vocab_size": size}) for size in (320, 336))
    note = vocabulary_note(short, long)
    assert note == vocabulary_note(long, short) and "first 320" in note and "336" in note
    assert vocabulary_note(short, short) is None


def test_other_settings_do_not_continue_a_run(settings):
    run(settings())
    with pytest.raises(OtherRunError, match=r"optimizer\.learning_rate: 0\.005 -> 0\.1"):
        run(settings(optimizer={"learning_rate": 0.1, "average_decay": 0.5}))


def test_a_run_that_diverges_stops_with_step_and_rows(settings, teacher, tmp_path):
    broken = load_pretrained(teacher)
    # Finite, but what it is multiplied with is not.
    broken.params["final_norm"]["scale"] = jnp.full_like(broken.params["final_norm"]["scale"], 3e38)
    path = save_pretrained(broken, tmp_path / "broken")
    config = settings(
        teacher={"path": str(path)},
        student={"kind": "checkpoint", "path": str(teacher)},
        evaluation={"before": False, "generate_examples": 0, "token_snapshots": 0},
    )
    with pytest.raises(TrainingDivergedError, match=r"2 updates in a row .* step 2 .* rows \d+"):
        run(config)
    records = read_records(config.run_dir)
    assert [record["skipped_steps"] for record in records] == [1, 2]
    assert records[0]["loss"] is None


def test_checkpoints_keep_the_last_and_the_best(settings, tmp_path):
    config = settings(
        training={"steps": 12, "batch_rows": 2},
        checkpoint={"every_steps": 2, "keep_last": 2, "keep_best": 1},
    )
    run(config)
    kept = {
        int(path.name.removeprefix("step_")) for path in (tmp_path / "run/checkpoints").iterdir()
    }
    scores = {
        r["step"]: r["reverse_kl"] for r in read_records(config.run_dir) if r["kind"] == "eval"
    }
    best = min(scores, key=scores.__getitem__)
    assert kept == {10, 12, best}
    with Checkpoints(config.run_dir) as checkpoints:
        assert checkpoints.best_step == best
    for step, expected in (("best", best), ("latest", 12), (10, 10)):
        like = load_student(config.run_dir, step).params
        assert np.array_equal(
            jax.tree.leaves(like)[0],
            jax.tree.leaves(load_student(config.run_dir, expected).params)[0],
        )
    with pytest.raises(FileNotFoundError, match="no checkpoint 7; valid: "):
        load_student(config.run_dir, 7)


def test_a_dry_run_knows_sizes_without_weights(settings, teacher, tmp_path):
    sizes = dry_run(settings(), Console(quiet=True))
    count = sum(leaf.size for leaf in jax.tree.leaves(load_pretrained(teacher).params))
    assert sizes["teacher"] == 4 * count
    assert sizes["optimizer and averages"] > 3 * sizes["student"]
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_a_model_out_of_reach_uses_its_described_architecture(settings):
    described = TINY_LLAMA | {"num_hidden_layers": 4}
    config = settings(teacher={"path": "nobody/nothing", "architecture": described})
    sizes = dry_run(config, Console(quiet=True))
    assert sizes["teacher"] > sizes["student"] > 0


def test_epochs_are_held_to_the_steps_that_they_make(settings, tmp_path):
    """Before anything is compiled, and without weights; as `steps` are when settings are built."""
    training = {"epochs": 1.0, "batch_rows": 2}
    never_warm = settings(training=training, optimizer={"warmup_steps": 500})
    told = r"training.epochs 1 of this data: \d+ steps.*\n.*warmup_steps 500: warm-up never ends"
    for start in (run, lambda config: dry_run(config, Console(quiet=True))):
        with pytest.raises(ScheduleError, match=told):
            start(never_warm)
    assert not (tmp_path / "run" / "checkpoints").exists()
    decays = {"schedule": "wsd", "warmup_steps": 3, "decay_fraction": 1.0}
    with pytest.raises(ScheduleError, match="warm-up runs into the decay, which starts at step 0"):
        prepare(settings(training=training, optimizer=decays), Console(quiet=True))


def test_a_dry_run_says_which_steps_it_cannot_count(settings):
    described = TINY_LLAMA | {"num_hidden_layers": 4}
    config = settings(
        teacher={"path": "nobody/nothing", "architecture": described},
        training={"epochs": 1.0, "batch_rows": 2},
        optimizer={"warmup_steps": 500},
    )
    console = Console(record=True, width=120, file=io.StringIO())
    dry_run(config, console)
    assert "how many steps training.epochs makes is not known" in console.export_text()
