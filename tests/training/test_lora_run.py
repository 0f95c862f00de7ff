"""Runs that train adapters: what is saved, what continues, what is exported."""

import io
import json
import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from adakd_jax.console import Console
from adakd_jax.eval.model import open_model
from adakd_jax.export import main as export
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.lora import merge_peft, without_adapters
from adakd_jax.models.lora import split_adapters
from adakd_jax.training.base import BaseNotFoundError, OtherBaseError, base_checksum
from adakd_jax.training.dry_run import dry_run
from adakd_jax.training.inputs import OtherInputsError
from adakd_jax.training.optimizer import decayed
from adakd_jax.training.prepare import prepare
from adakd_jax.training.saved_student import load_student
from adakd_jax.training.start import first_state
from adakd_jax.training.step import make_train_step
from tests.training.tiny_run import STEPS, latest, run, weights

LORA = {"rank": 4, "alpha": 16, "dropout": 0.2}
# Of a layer of the tiny teacher: r·(in + out) of q, k, v, o, gate, up and down.
ADAPTERS_OF_A_LAYER = 4 * (64 + 48 + 48 + 64 + 96 + 96 + 96)


def equal(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def finished(make_settings, tmp_path_factory):
    """A finished run whose student is two of the teacher's layers with adapters."""
    config = make_settings(
        tmp_path_factory.mktemp("finished") / "run",
        student={"kind": "layers", "layers": [0, 2], "lora": LORA},
    )
    return config, run(config)


def test_a_run_learns_and_keeps_adapters_only(finished, teacher):
    config, shown = finished
    assert "of which nothing is trained but adapters of 0.00M" in shown and "exported" in shown
    before, after = (
        json.loads(Path(config.run_dir, "evaluation", f"{name}.json").read_text())["reverse_kl"]
        for name in ("before", "after")
    )
    assert after < 0.98 * before
    saved = ocp.StandardCheckpointer().restore(f"{config.run_dir}/checkpoints/step_{STEPS}/default")
    sizes = [leaf.nbytes for leaf in jax.tree.leaves(saved)]
    # Weights, both moments and the average, four bytes each; the rest are counters.
    adapters = 2 * ADAPTERS_OF_A_LAYER
    assert 0 <= sum(sizes) - 4 * 4 * adapters < 200
    whole = load_student(config.run_dir)
    base = split_adapters(whole.params)[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(base)} == {jnp.dtype("bfloat16")}
    kernel = load_pretrained(teacher).params["layers"]["ffw"]["up"]["kernel"][np.array([0, 2])]
    assert equal(base["layers"]["ffw"]["up"]["kernel"], kernel.astype(jnp.bfloat16))


def test_its_checkpoint_is_measured_and_exported(finished, tmp_path, capsys):
    config, _ = finished
    merged = without_adapters(load_student(config.run_dir)).params
    assert equal(open_model(config.run_dir).params, merged)
    assert open_model(config.run_dir, step="best").config.lora is not None
    export([config.run_dir, str(tmp_path / "merged")])
    assert equal(load_pretrained(tmp_path / "merged").params, merged)
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "Low-rank adapters (LoRA, r 4, α 16, dropout 0.2) of self_attn.q_proj," in card
    with pytest.raises(SystemExit):
        export([config.run_dir, str(tmp_path / "adapter"), "--lora", "adapter"])
    told = " ".join(capsys.readouterr().err.split())
    assert "student.lora is given, its kind layers; valid: merged" in told


def test_adapters_decay_and_are_averaged(finished):
    config, _ = finished
    ready = prepare(config, Console(quiet=True))
    state = first_state(ready, ready.parts())
    assert all(jax.tree.leaves(decayed(state.params)))
    assert jax.tree.structure(state.average) == jax.tree.structure(state.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    # One set of frozen weights, which every step is given; none of it is in the state.
    held = {id(leaf) for leaf in jax.tree.leaves(ready.base)}
    assert held == {id(leaf) for leaf in jax.tree.leaves(split_adapters(ready.student.params)[0])}
    assert not held & {id(leaf) for leaf in jax.tree.leaves(state)}


def test_a_dry_run_counts_what_is_trained_and_what_is_frozen(finished, teacher):
    config, _ = finished
    console = Console(record=True, width=120, file=io.StringIO())
    sizes = dry_run(config, console)
    adapters = 2 * ADAPTERS_OF_A_LAYER
    whole = sum(leaf.size for leaf in jax.tree.leaves(load_student(config.run_dir).params))
    assert sizes["student"] == 2 * (whole - adapters) + 4 * adapters
    # Two moments and the average.
    assert 0 <= sizes["optimizer and averages"] - 3 * 4 * adapters < 200
    assert "trained  adapters of 0.00M parameters, nothing else" in console.export_text()


@pytest.fixture(scope="module")
def adapter_run(make_settings, teacher, tmp_path_factory):
    """A finished run of a checkpoint with adapters, exported as an adapter, and its settings."""
    folder = tmp_path_factory.mktemp("adapter_run")
    shutil.copytree(teacher, folder / "base")

    def settings(name, **changes):
        student = {"kind": "checkpoint", "path": str(folder / "base"), "lora": LORA}
        values = {
            "student": student | changes.pop("student", {}),
            "optimizer": {"learning_rate": 5e-3},
            "export": {"lora": "adapter"},
            "evaluation": {"before": False, "generate_examples": 0, "token_snapshots": 1},
            "distill": {"divergence": {"kind": "forward_kl"}, "ce_weight": 1.0},
        }
        return make_settings(folder / name, **(values | changes))

    config = settings("whole")
    assert "load it: peft.PeftModel.from_pretrained(MODEL" in run(config)
    return settings, config


@pytest.mark.slow
def test_a_stopped_run_with_dropout_continues_bit_for_bit(adapter_run, stop_after):
    settings, whole = adapter_run
    parts = settings("parts")
    stop_after(2, signal.SIGTERM)
    with pytest.raises(SystemExit):
        run(parts)
    assert latest(parts) in (2, 3)
    assert "continuing after step" in run(parts)
    assert equal(weights(whole), weights(parts))


@pytest.mark.parametrize("dropout", [0.2, 0.0])
def test_a_step_draws_masks_where_there_is_dropout(adapter_run, dropout):
    settings, _ = adapter_run
    config = settings("draws", student={"lora": LORA | {"dropout": dropout}})
    ready = prepare(config, Console(quiet=True))
    parts = ready.parts()
    traced = jax.make_jaxpr(make_train_step(parts))(
        first_state(ready, parts), ready.teaching_params, ready.batches.batch(0), ready.base
    )
    assert ("random_bits" in str(traced)) == (dropout > 0)


def test_an_exported_adapter_starts_a_student_and_joins_a_teacher(adapter_run):
    settings, config = adapter_run
    exported = f"{config.run_dir}/export"
    trained = load_student(config.run_dir)
    further = settings("further", student={"adapter": exported})
    assert equal(prepare(further, Console(quiet=True)).trained, split_adapters(trained.params)[1])
    merged_start = settings(
        "merged",
        student={"adapter": exported, "lora": None},
        teacher={"path": config.teacher.path, "adapter": exported},
        export={},
    )
    ready = prepare(merged_start, Console(quiet=True))
    wanted = merge_peft(load_pretrained(config.student.path), exported).params
    assert ready.base is None
    assert equal(ready.trained, wanted) and equal(ready.teacher.params, wanted)
    assert not equal(wanted, load_pretrained(config.student.path).params)


def test_a_student_answers_with_its_adapters(adapter_run):
    settings, _ = adapter_run
    policy = {
        "kind": "gkd",
        "student_fraction": 1.0,
        "generation": {"max_new_tokens": 4, "batch_size": 2},
    }
    shown = run(settings("answers", policy=policy, training={"steps": 1, "batch_rows": 2}))
    assert "exported" in shown


def test_a_base_that_is_gone_or_another_is_named(adapter_run):
    _, config = adapter_run
    other = without_adapters(load_student(config.run_dir))
    shutil.move(config.student.path, f"{config.student.path}-moved")
    try:
        with pytest.raises(BaseNotFoundError, match=r"hold adapters only.*base"):
            load_student(config.run_dir)
        save_pretrained(other, config.student.path)
        with pytest.raises(OtherBaseError, match=r"belong to other weights.*valid: the same files"):
            load_student(config.run_dir)
        with pytest.raises(OtherInputsError, match=r"student: model.safetensors: .* -> .*"):
            run(config)
        accepting = config.checkpoint.model_copy(update={"accept_changed_inputs": True})
        copy = shutil.copytree(config.run_dir, f"{config.run_dir}-copy")
        run(config.model_copy(update={"run_dir": copy, "checkpoint": accepting}))
        there = load_pretrained(config.student.path, dtype=jnp.bfloat16).params
        assert equal(split_adapters(load_student(copy).params)[0], there)
    finally:
        shutil.rmtree(config.student.path, ignore_errors=True)
        shutil.move(f"{config.student.path}-moved", config.student.path)
    assert load_student(config.run_dir).config.lora is not None


def test_targets_that_the_student_has_not_are_refused_before_weights_are_read(adapter_run):
    settings, _ = adapter_run
    console = Console(record=True, width=120, file=io.StringIO())
    with pytest.raises(ValueError, match=r"no projection called c_attn; valid: q_proj"):
        prepare(settings("wrong", student={"lora": {"targets": ["c_attn"]}}), console)
    assert "loading" not in console.export_text()


def test_a_checksum_sees_one_changed_bit_and_no_order():
    weights = jnp.asarray([1.0, 2.0, -3.0], jnp.bfloat16)
    found = base_checksum({"a": weights, "b": jnp.ones((2, 2))})
    # Sign, exponent and fraction of each number, added up.
    assert found == (0x3F80 + 0x4000 + 0xC040 + 4 * 0x3F800000) % 2**32
    assert base_checksum({"a": weights[::-1], "b": jnp.ones((2, 2))}) == found
    assert base_checksum({"a": weights, "b": jnp.ones((2, 2)).at[0, 0].add(2**-23)}) == found + 1
    assert base_checksum(None) is None
