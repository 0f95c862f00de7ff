"""What one fusion reads and writes: of an array that it only slices, the slice; of one that it
updates in place, the part; and nothing of what it hands on.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from adakd_jax.planning.behind import END, begun_in, is_call, is_handed_on, root_of
from adakd_jax.planning.hlo import KINDS, Instruction, Program, arrays_of, bytes_of, elements_of

SLICING = ("dynamic-slice", "gather", "slice")
UPDATING = ("dynamic-update-slice", "scatter")
_PASSING = ("bitcast", "reshape", "convert", "copy")
_VIEWING = ("bitcast", "reshape")
Computation = Mapping[str, Instruction]


class Update(NamedTuple):
    """What writing into an array in place moves of it, in bytes, if it is in memory.

    Attributes:
        read: of the target: a scatter that combines reads before it writes.
        written: of the target.
        targets: how many arrays a scatter writes into; they come first.
    """

    read: float
    written: float
    targets: int


def update_of(instruction: Instruction, shapes: Sequence[str], program: Program) -> Update:
    """What a dynamic-update-slice or a scatter moves of its targets.

    Args:
        instruction: it.
        shapes: of its operands.
        program: where the function stands that a scatter combines with.
    """
    if instruction.opcode == "dynamic-update-slice":
        return Update(0.0, bytes_of(shapes[1]), 1)
    targets = len(shapes) // 2
    part = sum(bytes_of(shape) for shape in shapes[targets + 1 :])
    combine = program.computations.get((instruction.called("to_apply") or [""])[0], {})
    replaces = bool(combine) and root_of(combine).opcode == "parameter"
    return Update(0.0 if replaces else part, part, targets)


def fused(inner: Computation, shapes: Sequence[str], result: str, program: Program) -> float:
    """Bytes that a fusion moves.

    Args:
        inner: what it computes.
        shapes: of its operands; they say what is in memory.
        result: its shape.
        program: where it stands.
    """
    if (begun := begun_in(inner)) is not None:
        read = sum(in_memory(inner[name].shape) for name in begun.operands if name in inner)
        return read + in_memory(begun.shape)
    fusion = _Fusion(inner, program)
    read = sum(
        fusion.read(parameter, in_memory(shapes[parameter.number or 0]))
        for parameter in inner.values()
        if parameter.opcode == "parameter" and not is_handed_on(parameter, inner)
    )
    return read + fusion.written(result)


class _Fusion:
    """The inside of a fusion."""

    def __init__(self, inner: Computation, program: Program) -> None:
        self.inner, self.program, self.root = inner, program, root_of(inner)
        self.users: dict[str, list[tuple[Instruction, int]]] = {}
        for instruction in inner.values():
            for place, name in enumerate(instruction.operands):
                self.users.setdefault(name, []).append((instruction, place))

    def read(self, parameter: Instruction, whole: float) -> float:
        """Bytes read of a parameter that has so many in memory."""
        return min(whole, self._read(parameter, whole)) if whole else 0.0

    def _read(self, value: Instruction, whole: float, viewed: bool = True) -> float:
        """`viewed`: whether the value is still the parameter, under another shape."""
        if value is self.root:
            return 0.0 if viewed else whole
        return sum(
            self._read_by(user, place, whole, viewed)
            for user, place in self.users.get(value.name, [])
        )

    def _read_by(self, user: Instruction, place: int, whole: float, viewed: bool) -> float:
        if user.opcode in _PASSING:
            return self._read(user, whole, viewed and user.opcode in _VIEWING)
        if user.opcode in SLICING and place == 0:
            return bytes_of(user.shape)
        if user.opcode in UPDATING and place < (update := self._update(user)).targets:
            return update.read / update.targets if self._is_in_place(user) else whole
        if user is self.root and user.opcode == "tuple":
            return 0.0 if viewed else whole
        return whole

    def written(self, result: str) -> float:
        """Bytes of the results that the fusion computes itself."""
        if self.root.opcode != "tuple":  # which may have several results all the same
            return 0.0 if is_call(self.root, (END,)) else self._written(self.root, result)
        outputs = (self.inner[name] for name in self.root.operands)
        return sum(
            self._written(output, shape)
            for output, shape in zip(outputs, elements_of(result), strict=True)
            if output.opcode not in ("parameter", *KINDS) and not is_call(output, (END,))
        )

    def _written(self, output: Instruction, shape: str) -> float:
        whole, part = in_memory(shape), self._in_place(output)
        return whole if part is None else min(whole, part)

    def _in_place(self, output: Instruction) -> float | None:
        """Bytes written of an output that is a parameter with some parts replaced; None of any
        other.
        """
        value, total = self._source(output), 0.0
        while value.opcode in UPDATING:
            total += self._update(value).written
            value = self._source(self.inner[value.operands[0]])
        return total if total and value.opcode == "parameter" else None

    def _is_in_place(self, update: Instruction) -> bool:
        """Whether an update writes into a parameter that the fusion then returns."""
        value = update
        while value.opcode in UPDATING:
            value = self._source(self.inner[value.operands[0]])
        return value.opcode == "parameter" and self._is_returned(update)

    def _is_returned(self, value: Instruction) -> bool:
        """Whether a value, perhaps after further updates or as a view, is an output."""
        if value is self.root:
            return True
        return any(
            user is self.root if user.opcode == "tuple" else self._is_returned(user)
            for user, place in self.users.get(value.name, [])
            if user.opcode == "tuple" or (user.opcode in (*_PASSING, *UPDATING) and place == 0)
        )

    def _update(self, instruction: Instruction) -> Update:
        shapes = [self.inner[name].shape for name in instruction.operands if name in self.inner]
        return update_of(instruction, shapes, self.program)

    def _source(self, value: Instruction) -> Instruction:
        """Where a value comes from, views and conversions followed."""
        while value.opcode in _PASSING and value.operands[0] in self.inner:
            value = self.inner[value.operands[0]]
        return value


def in_memory(shape: str) -> float:
    """Bytes of a shape's arrays that are in the device's main memory."""
    return sum(array.size for array in arrays_of(shape) if array.in_memory)
