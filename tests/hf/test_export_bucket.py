"""Exports to and from gs://: complete, marked while they are not, replaced like any other."""

import json

import jax
import numpy as np
import pytest
from etils import epath

from adakd_jax.hf import export, locate
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.folder import INCOMPLETE, refuse_to_overwrite
from adakd_jax.hf.load import load_pretrained
from adakd_jax.training.checkpoint import checkpoints_folder
from tests.hf.bucket import use_bucket
from tests.hf.tiny import TINY_LLAMA, make_pretrained

TARGET = "gs://bucket/runs/model"


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    monkeypatch.setattr(locate, "_REMOTE_CACHE", tmp_path / "cache")
    return use_bucket(monkeypatch)


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_pretrained(TINY_LLAMA, tokenizer)


def names():
    return {file.name for file in epath.Path(TARGET).iterdir()}


def test_an_export_to_a_bucket_loads_from_there(bucket, model):
    path = save_pretrained(model, TARGET, card="# A card\n", max_shard_size="20KB")
    assert str(path) == TARGET and INCOMPLETE not in names()
    assert {"config.json", "tokenizer.json", "README.md", "generation_config.json"} < names()
    loaded = load_pretrained(TARGET)
    for got, wanted in zip(
        jax.tree.leaves(loaded.params), jax.tree.leaves(model.params), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(got), np.asarray(wanted))
    save_pretrained(model, TARGET)
    assert "model.safetensors" in names() and "model.safetensors.index.json" not in names()


def test_an_export_that_broke_off_says_so_and_is_replaced(bucket, model, monkeypatch):
    save_pretrained(model, TARGET)

    def fail(*args, **options):
        raise OSError("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(export, "save_weights", fail)
        with pytest.raises(OSError, match="connection lost"):
            save_pretrained(model, TARGET)
    assert INCOMPLETE in names() and "config.json" not in names()
    save_pretrained(model, TARGET)
    assert INCOMPLETE not in names() and "config.json" in names()


def test_what_is_not_an_export_is_never_replaced(bucket, model):
    (epath.Path(TARGET) / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="gs://bucket/runs/model is not empty and not"):
        save_pretrained(model, TARGET)
    (epath.Path(TARGET) / "config.json").write_text(json.dumps({"adakd_jax_version": "0"}))
    with pytest.raises(FileExistsError, match=r"would delete notes\.txt"):
        refuse_to_overwrite(TARGET)
    assert (epath.Path(TARGET) / "notes.txt").read_text() == "mine"


def test_only_local_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(checkpoints_folder("gs://bucket/run")) == "gs://bucket/run/checkpoints"
    assert str(checkpoints_folder("run")) == str(tmp_path / "run" / "checkpoints")
