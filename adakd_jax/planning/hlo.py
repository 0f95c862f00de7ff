"""Reading the text of a compiled program: what it runs, and how often."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from adakd_jax.planning.loops import known_rounds

# The collectives.
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# Bits of an element, where they are not the digits in the type's name.
_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_HEADER = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s*\(.*\{\s*$")
_NAME = re.compile(r"%([\w.\-]+)")
# Memory space 0 is the device's main memory; the compiler keeps some arrays in faster ones.
_ELSEWHERE = re.compile(r"S\([1-9]\d*\)")


class Array(NamedTuple):
    """One array of a shape: its bytes, and whether they are in the device's main memory."""

    size: float
    in_memory: bool


class Instruction(NamedTuple):
    """One line of a computation; `number` is that of a parameter, or an integer constant."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    number: int | None = None

    def called(self, attribute: str) -> list[str]:
        """Names of the computations under an attribute: `body`, `calls`, `branch_computations`."""
        match = re.search(rf"\b{attribute}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.attributes)
        return [] if match is None else re.findall(r"[\w.\-]+", match[1])


class Program(NamedTuple):
    """Computations by name, each its instructions by name in order, and the one that starts."""

    computations: dict[str, dict[str, Instruction]]
    entry: str


class Run(NamedTuple):
    """An instruction, the computation it stands in, and how often it runs."""

    instruction: Instruction
    computation: dict[str, Instruction]
    times: float


def read_program(text: str) -> Program:
    """Parse the text of a compiled module (`jax.stages.Compiled.as_text`)."""
    computations: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] = {}
    entry = ""
    for line in text.splitlines():
        if line[:1] not in (" ", "\t", "}", "") and (header := _HEADER.match(line)):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif line[:1] in (" ", "\t") and " = " in line:
            instruction = _instruction(line.strip())
            current[instruction.name] = instruction
    return Program(computations, entry)


def _instruction(line: str) -> Instruction:
    name, _, rest = line.partition(" = ")
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    start = rest.index("(")
    end = _closing(rest, start)
    opcode = rest[:start]
    return Instruction(
        name=name.removeprefix("ROOT ").lstrip("%"),
        shape=shape,
        opcode=opcode,
        operands=tuple(_NAME.findall(rest[start:end])),
        attributes=rest[end:],
        number=_number(opcode, rest[start + 1 : end - 1]),
    )


def _number(opcode: str, text: str) -> int | None:
    is_whole = opcode in ("parameter", "constant") and text.lstrip("-").isdigit()
    return int(text) if is_whole else None


def _closing(text: str, start: int) -> int:
    """Index after the parenthesis that closes the one at `start`."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return start + match.end()
    raise ValueError(f"a parenthesis is never closed: {text[start : start + 80]}")


def arrays_of(shape: str) -> list[Array]:
    """The arrays of a shape, which may be a tuple."""
    found = []
    for kind, sides, layout in _ARRAY.findall(shape):
        digits = re.search(r"\d+", kind)
        bits = _BITS.get(kind) if kind in _BITS else int(digits[0]) if digits else 0
        count = math.prod(int(side) for side in sides.split(",") if side)
        found.append(Array(count * (bits or 0) / 8, not _ELSEWHERE.search(layout)))
    return found


def sides_of(shape: str) -> tuple[int, ...]:
    """Lengths of an array's dimensions; of a tuple, of its first array."""
    sides = _ARRAY.findall(shape)[0][1]
    return tuple(int(side) for side in sides.split(",") if side)


def elements_of(shape: str) -> list[str]:
    """The shapes that a tuple is made of; of an array, itself."""
    if not shape.startswith("("):
        return [shape]
    found, depth = [""], 0
    for mark in shape[1:-1]:
        depth += (mark in "([{") - (mark in ")]}")
        if mark == "," and depth == 0:
            found.append("")
        else:
            found[-1] += mark
    return [re.sub(r"/\*.*?\*/", "", one).strip() for one in found]


def bytes_of(shape: str) -> float:
    """Bytes of all arrays of a shape."""
    return sum(array.size for array in arrays_of(shape))


def runs(program: Program, unknown_rounds: float, *, into_fusions: bool = False) -> Iterator[Run]:
    """Every instruction that runs, loops and calls followed.

    Args:
        program: what is run.
        unknown_rounds: how often the body of a loop runs whose rounds depend on data.
        into_fusions: whether instructions inside fusions come too.

    A branch of a conditional counts as one of its number.
    """

    def visit(name: str, times: float) -> Iterator[Run]:
        computation = program.computations.get(name, {})
        for instruction in computation.values():
            yield Run(instruction, computation, times)
            rounds = unknown_rounds
            if instruction.opcode == "while":
                known = known_rounds(program.computations, computation, instruction)
                rounds = unknown_rounds if known is None else known
            for inner, factor in _calls(instruction, rounds, into_fusions):
                yield from visit(inner, times * factor)

    yield from visit(program.entry, 1.0)


def _calls(
    instruction: Instruction, rounds: float, into_fusions: bool
) -> Iterator[tuple[str, float]]:
    if instruction.opcode == "while":
        yield from ((name, rounds) for name in instruction.called("body"))
    elif instruction.opcode == "conditional":
        branches = instruction.called("branch_computations") or [
            *instruction.called("true_computation"),
            *instruction.called("false_computation"),
        ]
        yield from ((name, 1.0 / len(branches)) for name in branches)
    elif instruction.opcode in ("call", "async-start", "call-start"):
        names = instruction.called("to_apply") or instruction.called("calls")
        yield from ((name, 1.0) for name in names)
    elif instruction.opcode in ("fusion", "fusion-start") and into_fusions:
        yield from ((name, 1.0) for name in instruction.called("calls"))
