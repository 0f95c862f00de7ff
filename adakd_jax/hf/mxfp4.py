"""MXFP4, as the published gpt-oss has its experts: four bits a weight, a scale for each 32.

The values are those of E2M1, the scales powers of two (E8M0): OCP Microscaling Formats (MX)
Specification 1.0, sections 5.3.3 and 5.4.1.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adakd_jax.hf.model_files import ModelFileError
from adakd_jax.hf.safetensors_file import SafetensorsReader
from adakd_jax.hf.shards import Index

GROUP = 32  # weights that share a scale
_PACKED, _SCALES = "_blocks", "_scales"
_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_VALUES = np.array([*_MAGNITUDES, *(-value for value in _MAGNITUDES)], np.float32)
_POWERS = np.array([*(2.0 ** (power - 127) for power in range(255)), np.nan], np.float32)


def is_mxfp4(hf_config: Mapping[str, Any]) -> bool:
    """Whether a config.json says that its model's experts are, in the layout that is read here."""
    how = hf_config.get("quantization_config")
    method = how.get("quant_method") if isinstance(how, Mapping) else None
    return method == "mxfp4" and hf_config.get("model_type") == "gpt_oss"


def dequantised(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The weights.

    Args:
        blocks: uint8 [..., G, 16], two weights a byte, the first in the lower four bits.
        scales: uint8 [..., G], an exponent of 2 with a bias of 127; 255 is no number.

    Returns:
        float32 [..., 32·G].
    """
    pairs = np.stack([_VALUES[blocks & 15], _VALUES[blocks >> 4]], axis=-1)
    weights = pairs.reshape(*scales.shape, GROUP) * _POWERS[scales][..., None]
    return weights.reshape(*scales.shape[:-1], -1)


class Mxfp4Reader:
    """Reads a folder's tensors as if none were packed: of a kernel [E, out, in], packed along its
    inputs, the kernel [E, in, out] that a file of plain weights has.

    `shapes` and `read` are those of a `SafetensorsReader`.
    """

    def __init__(self, files: SafetensorsReader) -> None:
        self._files = files
        self.shapes = {
            name: shape for name, shape in files.shapes.items() if not self.is_part(name)
        }
        for name, shape in files.shapes.items():
            if name.endswith(_PACKED):
                base = name.removesuffix(_PACKED)
                _check(base, shape, files.shapes.get(base + _SCALES))
                experts, outputs, groups, _ = shape
                self.shapes[base] = (experts, groups * GROUP, outputs)

    def is_part(self, name: str) -> bool:
        """Whether a tensor of the files is packed, or the scales of one that is."""
        base = name.removesuffix(_PACKED).removesuffix(_SCALES)
        return base != name and base + _PACKED in self._files.shapes

    def read(self, name: str, index: Index) -> np.ndarray:
        """A part of a tensor."""
        if name + _PACKED not in self._files.shapes:
            return self._files.read(name, index)
        experts, inputs, outputs = index
        groups = slice(inputs.start // GROUP, -(-inputs.stop // GROUP))
        where = (experts, outputs, groups)
        blocks = self._files.read(name + _PACKED, (*where, slice(0, GROUP // 2)))
        weights = dequantised(blocks, self._files.read(name + _SCALES, where))
        first = inputs.start - groups.start * GROUP
        return weights[..., first : first + inputs.stop - inputs.start].swapaxes(1, 2)


def _check(name: str, shape: tuple[int, ...], scales: tuple[int, ...] | None) -> None:
    if len(shape) == 4 and shape[3] == GROUP // 2 and scales == shape[:3]:
        return
    told = "missing" if scales is None else list(scales)
    raise ModelFileError(
        f"{name}{_PACKED} is {list(shape)} and {name}{_SCALES} {told}; valid: [experts, outputs, "
        f"groups, {GROUP // 2}] and the same without the last, a scale for {GROUP} weights"
    )
