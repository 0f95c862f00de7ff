"""Files written piece by piece are what the library reads, and reads piece by piece."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from adakd_jax.hf.safetensors_file import TensorInfo, open_safetensors, write_safetensors

TENSORS = {
    "wide": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "narrow": np.arange(6, dtype=np.float32).astype(ml_dtypes.bfloat16).reshape(3, 2),
    "odd": np.float16([1.5, -2.0, 0.25]),
}
INFOS = [TensorInfo(name, array.shape, array.dtype) for name, array in TENSORS.items()]


@pytest.fixture
def file(tmp_path):
    pieces = (row.T for array in TENSORS.values() for row in array.reshape(3, -1))
    path, data = tmp_path / "model.safetensors", bytearray()
    write_safetensors(data.extend, INFOS, pieces, {"format": "pt"})
    path.write_bytes(data)
    return path


def test_the_library_reads_what_was_written(file):
    read = load_file(file)
    assert read.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    with safe_open(file, framework="numpy") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_the_data_begins_where_every_tensor_is_aligned(file):
    raw = file.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    for tensor in INFOS:
        begin = 8 + size + header[tensor.name]["data_offsets"][0]
        assert begin % tensor.dtype.itemsize == 0


def test_slices_are_read_one_tensor_at_a_time(file):
    with open_safetensors([file]) as reader:
        assert reader.shapes == {name: array.shape for name, array in TENSORS.items()}
        for name in ("wide", "narrow", "wide"):
            part = reader.read(name, (slice(1, 3), slice(0, 1)))
            np.testing.assert_array_equal(part, TENSORS[name][1:3, :1])
        np.testing.assert_array_equal(reader.read("odd", (slice(1, 2),)), [-2.0])


def test_what_cannot_be_written_is_refused():
    whole = [TensorInfo("ids", (2,), np.dtype(np.int64))]
    with pytest.raises(ValueError, match=r"ids is int64; valid .* float64, float32"):
        write_safetensors(bytearray().extend, whole, [np.arange(2)], {})
    with pytest.raises(ValueError, match="60 bytes of tensors were given, 66 announced"):
        pieces = [TENSORS["wide"], TENSORS["narrow"]]
        write_safetensors(bytearray().extend, INFOS, pieces, {})
