"""Experts as transformers 5 has them in memory: all of a layer's in two tensors.

Its `save_pretrained` takes them apart again, as published files have them, unless it is told not to
(`save_original_format=False`); a state that is saved in another way is not.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from adakd_jax.hf.shards import Index
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families import FAMILIES

_Read = Callable[[str, Index], np.ndarray]
_FUSED = re.compile(r"(?:model\.)?layers\.(\d+)\.mlp\.(experts\.gate_up_proj|experts\.down_proj)")
_ROUTER = re.compile(r"(?:model\.)?layers\.(\d+)\.mlp\.gate\.weight")


class _Part(NamedTuple):
    """Where an expert's matrix is: in which tensor, and from which of its outputs on."""

    name: str
    expert: int
    first: int
    shape: tuple[int, ...]


def experts_apart(
    config: DecoderConfig, shapes: Mapping[str, tuple[int, ...]], read: _Read
) -> tuple[Mapping[str, tuple[int, ...]], _Read]:
    """The tensors of a checkpoint as if each expert had its own, where its family has it so.

    Args:
        config: of the model.
        shapes: of every tensor, by name.
        read: a part of a tensor, by name.

    Returns:
        both again, under the names that the family's key table has.
    """
    apart = any("{expert}" in entry.name for entry in FAMILIES[config.family].keys)
    if not apart or not any(_FUSED.fullmatch(name) for name in shapes):
        return shapes, read
    experts = _FusedExperts(config, shapes, read)
    return experts.shapes, experts.read


class _FusedExperts:
    """Gate and up are the first and the second half of `gate_up_proj` [E, 2F, D], down is of
    `down_proj` [E, D, F].
    """

    def __init__(
        self, config: DecoderConfig, shapes: Mapping[str, tuple[int, ...]], read: _Read
    ) -> None:
        self._read = read
        entries = {entry.path: entry for entry in FAMILIES[config.family].keys}
        own = "layers.ffw.experts.{}.kernel"
        gate, up, down = (entries[own.format(name)] for name in ("gate", "up", "down"))
        self._parts: dict[str, _Part] = {}
        self._renamed: dict[str, str] = {}
        for name, shape in shapes.items():
            if (match := _FUSED.fullmatch(name)) and len(shape) == 3:
                halves = [gate, up] if match[2].endswith("gate_up_proj") else [down]
                experts, outputs, inputs = shape
                size = outputs // len(halves)
                for expert in range(experts):
                    for half, entry in enumerate(halves):
                        part = _Part(name, expert, half * size, (size, inputs))
                        own_name = entry.name.format(layer=match[1], expert=expert)
                        self._parts[own_name] = part
            elif match := _ROUTER.fullmatch(name):
                router = entries["layers.ffw.router.weight"]
                self._renamed[router.name.format(layer=match[1])] = name
            else:
                self._renamed[name] = name
        self.shapes = {name: part.shape for name, part in self._parts.items()}
        self.shapes |= {name: shapes[there] for name, there in self._renamed.items()}

    def read(self, name: str, index: Index) -> np.ndarray:
        """A part of a tensor."""
        part = self._parts.get(name)
        if part is None:
            return self._read(self._renamed[name], index)
        rows, columns = index
        alone = slice(part.expert, part.expert + 1)
        where = slice(part.first + rows.start, part.first + rows.stop)
        return self._read(part.name, (alone, where, columns))[0]
