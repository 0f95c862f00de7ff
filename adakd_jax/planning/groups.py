"""Which devices take part in a collective, from its attributes in the text of a program.

The compiler writes groups in three ways: as lists, `{{0,1},{2,3}}`; as rows of a reshaped and
transposed range, `[2,4]<=[4,2]T(1,0)`; or as axes of a mesh of its own,
`mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}`, where `'a':(2)2` is the part of an axis that
begins after 2 of it.
"""

import math
import re

import numpy as np

_LISTS = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})?\}")
_RANGE = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
_ROWS = re.compile(rf"replica_groups=\[([\d,]+)\]<={_RANGE}")
_MESH = re.compile(
    rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({_RANGE}\))?\s*\{{([^}}]*)\}}"
)
_AXIS = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")


def first_group(attributes: str, devices: int) -> tuple[int, ...]:
    """Devices of the first group, by their number in the program; all of them if none is named. Of
    a permutation, the first pair of two different devices.
    """
    if match := _MESH.search(attributes):
        return _along_axes(match[1], match[2], match[3], match[4])
    if match := _ROWS.search(attributes):
        return tuple(_range(match[2], match[3]).reshape(_integers(match[1]))[0].tolist())
    if (match := _LISTS.search(attributes)) and match[1]:
        groups = [_integers(group) for group in re.findall(r"[\d,]+\d|\d", match[1])]
        return tuple(next((group for group in groups if len(set(group)) > 1), groups[0][:1]))
    return tuple(range(devices))


def _along_axes(axes: str, shape: str | None, order: str | None, chosen: str) -> tuple[int, ...]:
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    count = str(math.prod(sizes.values()))
    grid = _range(shape or count, order).reshape(list(sizes.values()))
    places = []
    for name, size in sizes.items():
        part = next((match for match in _AXIS.finditer(chosen) if match[1] == name), None)
        if part is None:
            places.append([0])
        elif part[2] is None:
            places.append(list(range(size)))
        else:
            rest = size // (int(part[2]) * int(part[3]))
            places.append([rest * place for place in range(int(part[3]))])
    return tuple(grid[np.ix_(*places)].reshape(-1).tolist())


def _range(shape: str, order: str | None) -> np.ndarray:
    sides = _integers(shape)
    numbers = np.arange(math.prod(sides)).reshape(sides)
    return numbers.transpose(_integers(order)) if order else numbers


def _integers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
