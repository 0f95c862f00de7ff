"""An exported folder is complete, exact, and what transformers and its peers expect."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from adakd_jax.hf import export, folder
from adakd_jax.hf.export import export_config, save_pretrained
from adakd_jax.hf.load import load_pretrained
from tests.hf.tiny import TINY, TINY_LLAMA, make_pretrained

FILES = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_pretrained(TINY_LLAMA, tokenizer)


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def with_hf_config(model, **changes):
    hf_config = {**model.source.hf_config, **changes}
    return dataclasses.replace(model, source=dataclasses.replace(model.source, hf_config=hf_config))


def test_folder_is_complete_and_the_round_trip_exact(model, tmp_path):
    path = save_pretrained(model, tmp_path / "deep" / "model", card="---\nlicense: mit\n---\n")
    assert {file.name for file in path.iterdir()} == FILES
    loaded = load_pretrained(path)
    assert jax.tree.structure(loaded.params) == jax.tree.structure(model.params)
    for got, wanted in zip(
        jax.tree.leaves(loaded.params), jax.tree.leaves(model.params), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(got), np.asarray(wanted))
        assert got.dtype == wanted.dtype == jnp.float32
    assert loaded.config == model.config
    assert loaded.source.licence == "mit"
    assert loaded.source.chat_template == model.tokenizer.chat_template
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    readable = {oct(os.stat(file).st_mode & 0o777) for file in path.iterdir()}
    assert len(readable) == 1


def test_config_says_what_servers_read(model, tmp_path):
    path = save_pretrained(model, tmp_path / "model")
    config = read_json(path / "config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["model_type"], config["dtype"]) == ("llama", "float32")
    assert (config["vocab_size"], config["num_hidden_layers"]) == (320, 3)
    assert config["eos_token_id"] == 2
    assert read_json(path / "generation_config.json") == {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    with safe_open(path / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert "model.layers.2.self_attn.q_proj.weight" in file.keys()  # noqa: SIM118
        assert file.get_slice("model.layers.2.self_attn.k_proj.weight").get_shape() == [16, 32]


def test_own_generation_settings_travel_and_foreign_keys_do_not(model):
    source = dataclasses.replace(
        model.source,
        generation_config={"eos_token_id": [2, 0], "temperature": 0.6, "transformers_version": "4"},
        hf_config=TINY_LLAMA | {"auto_map": {"AutoModel": "x.py"}, "_name_or_path": "/home/me"},
    )
    config = export_config(dataclasses.replace(model, source=source))
    assert config["eos_token_id"] == [2, 0]
    assert not {"auto_map", "_name_or_path", "transformers_version"} & set(config)


def test_bfloat16_and_shards(model, tmp_path):
    small = dataclasses.replace(
        model, params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), model.params), tokenizer=None
    )
    path = save_pretrained(small, tmp_path / "model", max_shard_size="20KB")
    assert read_json(path / "config.json")["dtype"] == "bfloat16"
    index = read_json(path / "model.safetensors.index.json")
    assert len(set(index["weight_map"].values())) == len(list(path.glob("*.safetensors"))) > 1
    loaded = load_pretrained(path, dtype=jnp.bfloat16)
    assert loaded.tokenizer is None
    for got, wanted in zip(
        jax.tree.leaves(loaded.params), jax.tree.leaves(small.params), strict=True
    ):
        assert jnp.array_equal(got, wanted)


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@pytest.mark.parametrize(
    ("rope", "older"),
    [
        ({"rope_theta": 5e5, "rope_type": "default"}, {"rope_theta": 5e5}),
        (LLAMA3 | {"rope_theta": 5e5}, {"rope_theta": 5e5, "rope_scaling": LLAMA3}),
    ],
)
def test_rotary_settings_are_spelled_for_version_4_too(rope, older):
    hf_config = {k: v for k, v in TINY_LLAMA.items() if k != "rope_theta"}
    config = export_config(make_pretrained(hf_config | {"rope_parameters": rope}))
    assert {key: config.get(key) for key in older} == older
    assert ("rope_scaling" in config) == ("rope_scaling" in older)


def test_rotary_settings_per_layer_type_are_spelled_for_version_4_too():
    gemma = TINY | {
        "model_type": "gemma3_text",
        "sliding_window": 8,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    }
    config = export_config(make_pretrained({k: v for k, v in gemma.items() if k != "rope_theta"}))
    assert (config["rope_theta"], config["rope_local_base_freq"]) == (1e6, 1e4)
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}


def test_config_of_another_model_is_refused(model, tmp_path):
    stale = with_hf_config(model, num_hidden_layers=4, rope_theta=5e5)
    with pytest.raises(ValueError, match=r"num_layers is 4 there and 3 in the model.*ropes"):
        save_pretrained(stale, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_tokenizer_larger_than_the_model_is_refused(tokenizer, tmp_path):
    small = make_pretrained(TINY_LLAMA | {"vocab_size": 300}, tokenizer)
    with pytest.raises(ValueError, match=r"the tokenizer has tokens .*it has 300 embeddings"):
        save_pretrained(small, tmp_path / "model")


def test_earlier_export_is_replaced_whole(model, tmp_path):
    target = tmp_path / "model"
    save_pretrained(model, target, max_shard_size="20KB")
    save_pretrained(model, target)
    assert {file.name for file in target.iterdir()} == FILES - {"README.md"}
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["save_weights", "save_tokenizer", "_put_in_place"])
def test_failure_leaves_the_earlier_export_and_nothing_else(model, tmp_path, monkeypatch, name):
    target = save_pretrained(model, tmp_path / "model")
    before = {file.name: file.read_bytes() for file in target.iterdir()}
    module = folder if name == "_put_in_place" else export
    original = getattr(module, name)

    def fail(*args, **options):
        if name != "_put_in_place":
            original(*args, **options)
        raise OSError("disk full")

    monkeypatch.setattr(module, name, fail)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(model, target, card="new")
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(model, tmp_path / "other")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    assert {file.name: file.read_bytes() for file in target.iterdir()} == before


def test_what_a_killed_export_left_is_removed(model, tmp_path):
    (tmp_path / ".model.adakd_jax-partial-abc" / "new").mkdir(parents=True)
    (tmp_path / ".model.mine").mkdir()
    save_pretrained(model, tmp_path / "model")
    assert {path.name for path in tmp_path.iterdir()} == {"model", ".model.mine"}


def test_failed_rename_puts_the_earlier_export_back(model, tmp_path, monkeypatch):
    target = save_pretrained(model, tmp_path / "model")
    rename = Path.rename

    def fail_for_new(self, to):
        if self.name == "new":
            raise OSError("no rename")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(OSError, match="no rename"):
        save_pretrained(model, target)
    assert {file.name for file in target.iterdir()} == FILES - {"README.md"}


def test_what_is_not_an_export_is_never_replaced(model, tmp_path):
    target = tmp_path / "model"
    target.write_text("a file")
    with pytest.raises(FileExistsError, match="is a file"):
        save_pretrained(model, target)
    target.unlink()
    target.mkdir()
    save_pretrained(model, target)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"would delete notes\.txt"):
        save_pretrained(model, target)
    (target / "config.json").write_text(json.dumps(TINY_LLAMA))
    with pytest.raises(FileExistsError, match="not an earlier export"):
        save_pretrained(model, target)
    assert (target / "notes.txt").read_text() == "mine"
