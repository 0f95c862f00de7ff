"""Safetensors files, read and written a piece at a time.

The library reads slices, but maps whole files, and writes only what is in memory whole. The format
is: the header's length (8 bytes, little endian), the header (JSON: for each tensor dtype, shape and
where in the data it begins and ends), the data.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from adakd_jax.hf.model_files import unusable
from adakd_jax.hf.shards import Index

_DTYPE_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_LENGTH_BYTES = 8
_HEADER_MULTIPLE = 8


class TensorInfo(NamedTuple):
    """A tensor of a file, by its name there."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class SafetensorsReader:
    """Reads slices of the tensors of several files; to be had from `open_safetensors`.

    `shapes` has the shape of every tensor by its name, `dtypes` what the file calls its dtype.
    """

    def __init__(self, files: Sequence[Path], stack: ExitStack):
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self._files: dict[str, Path] = {}
        self._stack, self._name, self._slice = stack, "", None
        for path in files:
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118 - not a dict
                    tensor = file.get_slice(name)
                    self.shapes[name] = tuple(tensor.get_shape())
                    self.dtypes[name] = tensor.get_dtype()
                    self._files[name] = path

    def read(self, name: str, index: Index) -> np.ndarray:
        """A part of a tensor."""
        if name != self._name:
            # Pages of a mapped file count as this process's memory until it is closed.
            self._stack.close()
            file = self._stack.enter_context(_opened(self._files[name]))
            self._name, self._slice = name, file.get_slice(name)
        part: Any = self._slice
        return part[index]

    def check_dtypes(self, ignored: Callable[[str], bool] = lambda name: False) -> None:
        """Refuse tensors that are not plain numbers, as those of a quantised model.

        Args:
            ignored: says of a name whether its tensor is not read.

        Raises:
            ModelFileError: names a file and up to three of its tensors.
        """
        for path in dict.fromkeys(self._files.values()):
            odd = [
                f"{name} is {dtype}"
                for name, dtype in self.dtypes.items()
                if self._files[name] == path
                and dtype not in _DTYPE_NAMES.values()
                and not ignored(name)
            ]
            if odd:
                raise unusable(
                    path,
                    f"holds {len(odd)} tensors that are no plain weights: {', '.join(odd[:3])}",
                    f"valid: {', '.join(_DTYPE_NAMES.values())}; of a quantised model take the "
                    "original, or a .gguf file",
                )


def _opened(path: Path) -> Any:
    """The file opened by the library, which checks its header against its length."""
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError, ValueError) as error:
        why = str(error).removeprefix("Error while deserializing header: ")
        lengths = _lengths(path)
        if lengths is not None and lengths[0] < lengths[1]:
            why = f"it has {lengths[0]:,} bytes, and its header announces {lengths[1]:,}"
        raise unusable(path, f"is not a whole safetensors file: {why}") from error


def _lengths(path: Path) -> tuple[int, int] | None:
    """Bytes of a file, and how many there should be; None where its header does not say."""
    try:
        with path.open("rb") as opened:
            size = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
            length = path.stat().st_size
            if size > length:
                return length, _LENGTH_BYTES + size
            header = json.loads(opened.read(size))
            header.pop("__metadata__", None)
        ends = [tensor["data_offsets"][1] for tensor in header.values()]
        return length, _LENGTH_BYTES + size + max(ends, default=0)
    except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError):
        return None


def read_metadata(file: epath.Path) -> dict[str, str]:
    """What the header of a file says besides its tensors; the file may be remote.

    Raises:
        ModelFileError: it has no header that can be read.
    """
    length = file.stat().length
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
        header = opened.read(min(size, length))
    try:
        return json.loads(header).get("__metadata__", {})
    except (ValueError, AttributeError, RecursionError) as error:
        raise unusable(file, f"is not a whole safetensors file: {error}") from error


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a small file.

    Raises:
        ModelFileError: the file cannot be read, or holds other tensors than plain numbers.
    """
    with open_safetensors([path]) as reader:
        reader.check_dtypes()
    return load_file(path)


@contextmanager
def open_safetensors(files: Sequence[Path]) -> Iterator[SafetensorsReader]:
    """A reader of all tensors of some files."""
    with ExitStack() as stack:
        yield SafetensorsReader(files, stack)


def write_safetensors(
    write: Callable[[bytes | memoryview], Any],
    tensors: Sequence[TensorInfo],
    pieces: Iterable[np.ndarray],
    metadata: Mapping[str, str],
) -> None:
    """Write a file from front to back.

    Args:
        write: appends to the file, as `write` of an open one does.
        tensors: what it holds, in this order.
        pieces: their values: the first rows of the first tensor, its next rows, and so on.
        metadata: goes into the header.

    Raises:
        ValueError: a dtype that no file has, or pieces of another size than the header says.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.size
        header[tensor.name] = {
            "dtype": _dtype_name(tensor),
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_MULTIPLE)
    write(len(text).to_bytes(_LENGTH_BYTES, "little"))
    write(text)
    written = 0
    for piece in pieces:
        data = np.ascontiguousarray(piece).reshape(-1).view(np.uint8)
        write(data.data)
        written += data.nbytes
    if written != end:
        raise ValueError(f"{written:,} bytes of tensors were given, {end:,} announced")


def _dtype_name(tensor: TensorInfo) -> str:
    name = _DTYPE_NAMES.get(tensor.dtype.name)
    if name is None:
        raise ValueError(
            f"{tensor.name} is {tensor.dtype.name}; valid in a safetensors file of weights: "
            f"{', '.join(_DTYPE_NAMES)}"
        )
    return name
