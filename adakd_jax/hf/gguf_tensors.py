"""The tensors of a GGUF file under their Hugging Face names, dequantised one at a time."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from gguf import ReaderTensor
from gguf.quants import dequantize

from adakd_jax.hf.model_files import ModelFileError
from adakd_jax.models.gguf_family import Gguf


class Stored(NamedTuple):
    """Where a tensor is: a whole one of the file, or that of one expert in it.

    `transposed`: its last two dimensions are the other way around on Hugging Face. Of several that
    are one there, `turn` says which comes first.
    """

    tensor: ReaderTensor
    shape: tuple[int, ...]
    expert: int | None = None
    transposed: bool = False
    turn: int = 0

    @property
    def of_experts(self) -> bool:
        """Whether it holds all experts, which can be dequantised one by one."""
        return self.expert is None and len(self.tensor.shape) == 3

    def dequantised(self, name: str, experts: slice | None) -> np.ndarray:
        """The values, float32; of some experts, where the tensor is of all of them.

        Raises:
          ModelFileError: of a type that the library cannot read; `name` is for the message.
        """
        data, shape = self.tensor.data, self.shape
        if self.expert is not None:
            data = data[self.expert]
        elif experts is not None:
            data = data[experts]
            shape = (len(data), *shape[1:])
        try:
            dequantised = dequantize(data, self.tensor.tensor_type)
        except NotImplementedError as error:
            raise ModelFileError(
                f"{name} is of type {self.tensor.tensor_type.name}, which the gguf library cannot "
                "read; valid: a file of another quantisation, such as Q8_0 or F16"
            ) from error
        return np.array(dequantised, dtype=np.float32).reshape(shape)


def hf_shape(parts: Sequence[Stored], gguf: Gguf) -> tuple[int, ...]:
    """Of the tensor on Hugging Face."""
    shapes = [list(part.shape) for part in parts]
    for shape, part in zip(shapes, parts, strict=True):
        if part.transposed:
            shape[-2:] = shape[:-3:-1]
    if len(parts) > 1:
        # Of two that should not both be there, the sum is a wrong shape.
        axis = -1 if gguf.join is None else gguf.join.axis
        shapes[0][axis] = sum(shape[axis] for shape in shapes)
    return tuple(shapes[0])


def stored_tensors(
    tensors: Mapping[str, ReaderTensor],
    shapes: Mapping[str, tuple[int, ...]],
    gguf: Gguf,
    left_out: range,
) -> dict[str, tuple[Stored, ...]]:
    """All tensors, by their Hugging Face names.

    Args:
        tensors: by llama.cpp's names.
        shapes: theirs, rows first.
        gguf: the family.
        left_out: numbers of the layers that guess later tokens.
    """
    found: dict[str, list[Stored]] = {}
    for name, tensor in tensors.items():
        for hf_name, stored in _named(name, tensor, shapes[name], gguf, left_out):
            found.setdefault(hf_name, []).append(stored)
    return {name: tuple(sorted(parts, key=lambda part: part.turn)) for name, parts in found.items()}


def _named(
    name: str, tensor: ReaderTensor, shape: tuple[int, ...], gguf: Gguf, left_out: range
) -> Iterator[tuple[str, Stored]]:
    """A tensor under its Hugging Face name, or those of its experts under theirs; one that has none
    keeps its own, and is reported as extra.
    """
    stem, _, kind = name.rpartition(".")
    if stem in gguf.outside:
        yield f"{gguf.outside[stem]}.{kind}", Stored(tensor, shape)
        return
    match = re.fullmatch(r"blk\.(\d+)\.([\w.]+?)(?:\.(\w+))?", name)
    if match is not None and int(match[1]) in left_out:
        yield f"mtp.{name}", Stored(tensor, shape)
        return
    if match is None or match[2] not in gguf.names:
        yield name, Stored(tensor, shape)
        return
    own = match[2]
    hf_name = gguf.layer.format(layer=match[1]) + gguf.names[own]
    if match[3] is not None:
        hf_name = gguf.full_name(hf_name, match[3])
    if "{expert}" in hf_name:
        for expert in range(shape[0]):
            yield hf_name.format(expert=expert), Stored(tensor, shape[1:], expert)
        return
    transposed = gguf.transposes_experts if len(shape) == 3 else gguf.transposes
    transposed = transposed and len(shape) > 1
    if own in gguf.ranks and len(shape) == gguf.ranks[own] - 1:
        shape = (*shape[:-1], 1, *shape[-1:])
    turn = gguf.join.names.index(own) if gguf.join and own in gguf.join.names else 0
    yield hf_name, Stored(tensor, shape, transposed=transposed, turn=turn)
