"""Experts of four bits are read as the weights that they stand for."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adakd_jax.hf import shards
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.model_files import ModelFileError
from adakd_jax.hf.mxfp4 import dequantised
from adakd_jax.hf.weights import WeightsError
from tests.hf.mxfp4_folder import e2m1, packed_folder


@pytest.fixture
def packed(tmp_path):
    return packed_folder(tmp_path / "packed"), tmp_path / "packed"


def edit(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_every_code_and_power():
    codes = np.arange(32) % 16
    blocks = (codes[0::2] | (codes[1::2] << 4)).astype(np.uint8)[None]
    for scale, power in ((127, 1.0), (128, 2.0), (120, 2.0**-7), (0, 2.0**-127)):
        got = dequantised(blocks, np.array([scale], np.uint8))
        np.testing.assert_array_equal(got, [e2m1(code) * power for code in codes])
    assert got.dtype == np.float32 and np.signbit(got[8])
    assert np.isnan(dequantised(blocks, np.array([255], np.uint8))).all()


@pytest.mark.parametrize("block_bytes", [4 * 2**20, 512])
def test_a_packed_folder_is_its_weights(packed, monkeypatch, block_bytes, tmp_path):
    """Whole or a few numbers at a time; written again, they are plain ones."""
    monkeypatch.setattr(shards, "BLOCK_BYTES", block_bytes)
    weights, folder = packed
    model = load_pretrained(folder)
    experts = model.params["layers"]["ffw"]["experts"]
    for layer in range(3):
        name = f"model.layers.{layer}.mlp.experts."
        both = weights[f"{name}gate_up_proj"]
        for ours, theirs in (
            ("gate", both[..., 0::2]),
            ("up", both[..., 1::2]),
            ("down", weights[f"{name}down_proj"]),
        ):
            np.testing.assert_array_equal(experts[ours]["kernel"][layer], theirs)
    again = save_pretrained(model, tmp_path / "again")
    assert "quantization_config" not in json.loads((again / "config.json").read_text())
    written = load_file(again / "model.safetensors")
    for name, values in weights.items():
        np.testing.assert_array_equal(written[name], values)


def test_what_does_not_fit_is_named(packed):
    _, folder = packed
    name = "model.layers.1.mlp.experts.down_proj"
    edit(folder, lambda tensors: tensors.pop(f"{name}_scales"))
    with pytest.raises(ModelFileError, match=rf"{name}_scales missing; valid: \[experts, outputs"):
        load_pretrained(folder)
    edit(folder, lambda tensors: tensors.pop(f"{name}_blocks"))
    with pytest.raises(WeightsError, match=rf"1 missing: {name}"):
        load_pretrained(folder)


def test_only_gpt_oss_is_read_so(packed):
    _, folder = packed
    config = json.loads((folder / "config.json").read_text())
    how = config["quantization_config"]
    other = {"model_type": "mixtral", "rope_theta": 1.0, "quantization_config": how}
    (folder / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if "rope" not in k} | other)
    )
    with pytest.raises(ModelFileError, match=r"is quantised \(mxfp4, says"):
        load_pretrained(folder)
