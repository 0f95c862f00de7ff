"""Every command ends with exit code 2 and the file's name where a model's file is broken."""

import json

import pytest

from adakd_jax.cache_teacher import main as cache_teacher
from adakd_jax.evaluate import main as evaluate
from adakd_jax.export import main as export
from adakd_jax.generate import main as generate
from adakd_jax.hf.export import save_pretrained
from adakd_jax.plan import main as plan
from adakd_jax.train import main as train

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4096\n"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text('{"instruction": "Name a fruit", "output": "a pear"}\n')
    return str(file)


@pytest.fixture
def broken(tmp_path, tiny_pretrained):
    """Breaks a file of a model that is otherwise whole."""
    folder = tmp_path / "model"
    save_pretrained(tiny_pretrained, folder)

    def spoil(name):
        (folder / name).write_text(POINTER)
        return str(folder), f"{folder / name} is a Git LFS pointer"

    return spoil


def stopped(command, flags, capsys):
    with pytest.raises(SystemExit) as ended:
        command(flags)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("command", ["evaluate", "generate"])
def test_a_model_to_measure_or_ask(broken, rows, name, command, capsys, tmp_path):
    model, told = broken(name)
    flags = {
        "evaluate": ["--data", rows, "--cache_dir", str(tmp_path / "cache")],
        "generate": ["--text", "Name a fruit"],
    }[command]
    main = {"evaluate": evaluate, "generate": generate}[command]
    assert told in stopped(main, ["--model", model, *flags], capsys)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (train, "model.safetensors"),
        (train, "generation_config.json"),
        (cache_teacher, "model.safetensors"),
        (plan, "config.json"),
    ],
)
def test_a_model_to_learn_from(broken, rows, command, name, capsys, tmp_path, monkeypatch):
    model, told = broken(name)
    settings = {
        "run_dir": str(tmp_path / "run"),
        "data": {"train": {"kind": "file", "path": rows}, "cache_dir": str(tmp_path / "cache")},
        "teacher": {"path": model},
        "student": {"kind": "layers", "layers": [0]},
        "training": {"steps": 1, "batch_rows": 1},
    }
    if command is cache_teacher:
        settings["teacher"]["cache"] = str(tmp_path / "teacher_cache")
    if command is plan:
        settings["topology"] = "cpu:1"
        monkeypatch.setattr("adakd_jax.plan._use_only_the_cpu", lambda config: None)
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(settings))
    assert told in stopped(command, ["--config", str(file)], capsys)


def test_a_run_to_export(broken, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("{")
    target = str(tmp_path / "out")
    assert f"{run / 'config.yaml'} cannot be read" in stopped(export, [str(run), target], capsys)
