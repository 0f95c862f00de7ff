"""A run goes on with the rows, weights and tokenizer that it began with, or says what changed."""

import json
import shutil
import signal
from contextlib import contextmanager

import numpy as np
import pytest

from adakd_jax.config.provenance import read_starts
from adakd_jax.hf.digests import model_digests, sampled_checksum
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.train import main
from adakd_jax.training.inputs import FILE, OtherInputsError, teacher_key
from adakd_jax.training.records import MetricsLog
from tests.training.tiny_run import latest, run

STEPS_OF_AN_EPOCH = 3


@pytest.fixture(scope="module")
def begun(make_settings, teacher, rows, tmp_path_factory):
    """A run of two epochs that was stopped on its way, and its settings in another folder.

    Its teacher, student and rows are copies of its own.
    """
    folder = tmp_path_factory.mktemp("begun")
    for name in ("teacher", "student"):
        shutil.copytree(teacher, folder / name)
    shutil.copy(rows, folder / "rows.jsonl")

    def settings(name, **checkpoint):
        base = make_settings(folder / name)
        train = {"kind": "file", "path": str(folder / "rows.jsonl")}
        return make_settings(
            folder / name,
            data={**base.data.model_dump(), "train": train},
            teacher={"path": str(folder / "teacher")},
            student={"kind": "checkpoint", "path": str(folder / "student")},
            training={"epochs": 2.0, "batch_examples": 6},
            checkpoint={"every_steps": 2, **checkpoint},
            evaluation={"before": False, "generate_examples": 0, "token_snapshots": 0},
        )

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        write = MetricsLog.write

        def stop(self, done, values, kind="train"):
            write(self, done, values, kind)
            if done == STEPS_OF_AN_EPOCH + 1:
                signal.raise_signal(signal.SIGTERM)

        patch.setattr(MetricsLog, "write", stop)
        run(settings("whole"))
    return settings, folder


@pytest.fixture
def again(begun, tmp_path_factory):
    """Settings of a copy of that run."""
    settings, folder = begun
    name = tmp_path_factory.mktemp("copy").name

    def make(**checkpoint):
        if not (folder / name).exists():
            shutil.copytree(folder / "whole", folder / name)
        return settings(name, **checkpoint)

    return make


@contextmanager
def others(path):
    """Puts a file or folder back as it was."""
    kept = path.with_name(f"{path.name}.kept")
    (shutil.copytree if path.is_dir() else shutil.copy)(path, kept)
    try:
        yield path
    finally:
        (shutil.rmtree if path.is_dir() else type(path).unlink)(path)
        kept.rename(path)


def another_model(folder):
    """The same model with one weight changed, in its last layer."""
    model = load_pretrained(folder)
    scale = model.params["layers"]["ffw_norm"]["scale"]
    model.params["layers"]["ffw_norm"]["scale"] = scale.at[-1, -1].add(0.5)
    shutil.rmtree(folder)
    save_pretrained(model, folder)


def test_other_rows_are_refused_with_what_has_changed(begun, again):
    lines = (begun[1] / "rows.jsonl").read_text().splitlines(keepends=True)
    with others(begun[1] / "rows.jsonl") as file:
        file.write_text("".join(lines[:-1]) + lines[-1].replace("Say", "Tell"))
        told = (
            r"other inputs.*\n  training rows: 18 rows, digest \w+ -> 18 rows, digest \w+\nvalid:"
        )
        with pytest.raises(OtherInputsError, match=told):
            run(again())
        file.write_text("".join(lines[:12]))
        with pytest.raises(OtherInputsError, match=r"training rows: 18 rows, .* -> 9 rows"):
            run(again())
    assert "continuing after step" in run(again())


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_other_weights_are_refused_before_they_are_read(begun, again, who, monkeypatch):
    with others(begun[1] / who) as folder:
        another_model(folder)
        for load in ("load_teacher", "load_student"):
            monkeypatch.setattr(
                f"adakd_jax.training.prepare.{load}", lambda *a, **k: pytest.fail("read")
            )
        told = rf"{who}: model.safetensors: [\d,]+ bytes, checksum \w+ -> [\d,]+ bytes, checksum"
        with pytest.raises(OtherInputsError, match=told):
            run(again())


def test_another_tokenizer_and_template_are_refused(begun, again):
    with others(begun[1] / "student") as folder:
        (folder / "chat_template.jinja").write_text(
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        )
        with pytest.raises(OtherInputsError, match=r"\n  tokenizer: digest \w+ -> digest \w+"):
            run(again())


def test_the_command_ends_with_2_and_goes_on_where_it_is_told_to(begun, again, tmp_path, capsys):
    settings = tmp_path / "run.yaml"
    settings.write_text(json.dumps(again().model_dump(mode="json")))
    lines = (begun[1] / "rows.jsonl").read_text().splitlines(keepends=True)
    with others(begun[1] / "rows.jsonl") as file:
        file.write_text("".join(reversed(lines)))
        with pytest.raises(SystemExit) as ended:
            main(["--config", str(settings)])
        assert ended.value.code == 2
        assert "training rows: 18 rows" in capsys.readouterr().err
        main(["--config", str(settings), "--checkpoint.accept_changed_inputs", "true"])
        shown = capsys.readouterr().out
        assert "warning: going on with other inputs" in shown and "exported" in shown
        (changed, held_out) = read_starts(again().run_dir)[-1]["changed_inputs"]
        assert changed.startswith("training rows: ") and held_out.startswith("held-out rows: ")
        assert "warning" not in run(again())  # these are the run's own from now on


def test_a_run_without_digests_goes_on_with_a_remark(begun, again):
    config = again()
    file = begun[1] / config.run_dir / FILE
    file.unlink()
    shown = " ".join(run(config).split())
    assert "began with a version that kept no digests" in shown and "exported" in shown
    assert file.exists() and "no digests" not in run(config)


def test_rows_that_are_gone_leave_no_checkpoint_past_the_end(begun, again):
    config = again()
    (begun[1] / config.run_dir / FILE).unlink()
    lines = (begun[1] / "rows.jsonl").read_text().splitlines(keepends=True)
    with others(begun[1] / "rows.jsonl") as file:
        file.write_text("".join(lines[:8]))  # two steps in all
        told = r"a checkpoint of step \d, but its data makes 2 steps now: rows are gone"
        with pytest.raises(OtherInputsError, match=told):
            run(config)
        before = latest(config)
        assert "exported" in run(again(accept_changed_inputs=True))
        assert latest(config) == before


def test_a_start_that_came_to_nothing_binds_nobody(begun, tmp_path):
    settings, folder = begun
    lines = (folder / "rows.jsonl").read_text().splitlines(keepends=True)
    config = settings("broken").model_copy(update={"run_dir": str(tmp_path / "run")})
    with others(folder / "rows.jsonl") as file:
        file.write_text("".join(lines[:12]))
        failing = "adakd_jax.training.run.train"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(failing, lambda *a, **k: (_ for _ in ()).throw(MemoryError()))
            run(config)
        assert (tmp_path / "run" / FILE).exists()
    assert "exported" in run(config)


def test_a_model_is_known_by_all_its_files(begun):
    settings, folder = begun
    teacher = settings("whole").teacher
    names = set(model_digests(teacher.path))
    assert names == {"model.safetensors", "config.json", "generation_config.json"}
    before = teacher_key(teacher)
    with others(folder / "teacher") as model:
        another_model(model)
        assert teacher_key(teacher) != before
    assert teacher_key(teacher) == before


def test_a_checksum_of_a_large_file_reads_a_part_of_it(tmp_path):
    file, blocks = tmp_path / "weights", 4
    content = np.random.default_rng(0).integers(0, 256, 40 << 16, dtype=np.uint8)
    content.tofile(file)
    checksum = sampled_checksum(file, blocks)
    assert checksum != sampled_checksum(file)  # which reads all of so small a file
    for place, seen in ((0, True), (content.size - 1, True), (2 << 16, False)):
        changed = content.copy()
        changed[place] ^= 1
        changed.tofile(file)
        assert (sampled_checksum(file, blocks) != checksum) == seen
