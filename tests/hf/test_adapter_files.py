"""Files of an adapter that are broken, or say what no adapter can be."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from adakd_jax.hf.model_files import ModelFileError
from adakd_jax.hf.peft import AdapterError, read_adapter
from adakd_jax.models import decoder_config
from tests.hf.test_load import LLAMA

CONFIG = decoder_config(LLAMA)
SETTINGS = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
MODULE = "base_model.model.model.layers.1.self_attn.q_proj"


def tensors(**changes):
    pair = {"A": np.ones((2, 8), np.float32), "B": np.ones((8, 2), np.float32)} | changes
    return {f"{MODULE}.lora_{which}.weight": tensor for which, tensor in pair.items()}


@pytest.fixture
def adapter(tmp_path):
    def write(settings=SETTINGS, held=None):
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
        save_file(tensors() if held is None else held, tmp_path / "adapter_model.safetensors")
        return tmp_path

    return write


def test_a_whole_one_is_read(adapter):
    update = read_adapter(adapter(), CONFIG).updates["attn.query"]
    np.testing.assert_array_equal(update.scale, [0.0, 2.0, 0.0])


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_broken_file_is_named(adapter, name):
    folder = adapter()
    whole = (folder / name).read_bytes()
    for content in (b"", b"{", whole[: len(whole) // 2], b"version https://git-lfs.github.com\n"):
        (folder / name).write_bytes(content)
        with pytest.raises(ModelFileError, match=rf"^{folder / name} is "):
            read_adapter(folder, CONFIG)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_alpha": "16"}, "lora_alpha is '16', valid: a number"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern is .*valid: a number by module"),
        ({"alpha_pattern": {"q_proj": None}}, "q_proj is None, valid: a number"),
        ({"alpha_pattern": {"(q": 4}}, "alpha_pattern '\\(q' is no regular expression"),
    ],
)
def test_settings_of_another_kind_are_named(adapter, settings, message):
    with pytest.raises(AdapterError, match=message):
        read_adapter(adapter(SETTINGS | settings), CONFIG)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (tensors(A=np.ones((0, 8), np.float32)), r"A \[0, 8\] and B \[8, 2\], should be"),
        (tensors(A=np.ones((), np.float32)), r"A \[\] and B \[8, 2\], should be"),
        (tensors(B=np.ones((8, 2, 1), np.float32)), r"B \[8, 2, 1\], should be"),
    ],
)
def test_tensors_of_other_shapes_are_named(adapter, held, message):
    with pytest.raises(AdapterError, match=message):
        read_adapter(adapter(held=held), CONFIG)


def test_quantised_tensors_are_named(adapter):
    with pytest.raises(ModelFileError, match=r"lora_A\.weight is I8"):
        read_adapter(adapter(held=tensors(A=np.ones((2, 8), np.int8))), CONFIG)
