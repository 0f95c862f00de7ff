"""How often the body of a loop runs, where the compiled program tells.

The compiler may note the rounds, or our own code about how many they will be. Where neither does, a
loop that counts is recognised: its condition compares a counter with a constant, the counter starts
at a constant, and the body adds one to it (an unrolled loop adds more).
"""

import math
import re
from collections.abc import Mapping
from typing import Any

_NOTED = re.compile(r"known_trip_count\W+n\W+(\d+)")
# In the name of an operation, which is that of the scopes around it: see `axes.expected_rounds`.
_EXPECTED = re.compile(r'op_name="[^"]*expected_rounds=([\d.e+-]+)/while"')
_PLACE = re.compile(r"index=(\d+)")
Computation = Mapping[str, Any]


def known_rounds(
    computations: Mapping[str, Computation], computation: Computation, loop: Any
) -> float | None:
    """Rounds of a `while`; None if they depend on data.

    Args:
        computations: of the program, by name.
        computation: the one that the loop stands in.
        loop: the instruction.
    """
    if noted := _NOTED.search(loop.attributes) or _EXPECTED.search(loop.attributes):
        return float(noted[1])
    condition = computations.get((loop.called("condition") or [""])[0], {})
    body = computations.get((loop.called("body") or [""])[0], {})
    compared = list(condition.values())[-1] if condition else None
    if compared is None or compared.opcode != "compare":
        return None
    if "direction=LT" not in compared.attributes:
        return None
    counter, end = (_source(condition, name) for name in compared.operands)
    place = _place(counter)
    first = _carried(computation, loop, place)
    last = end.number if _place(end) is None else _carried(computation, loop, _place(end))
    if place is None or first is None or last is None:
        return None
    return float(max(0, math.ceil((last - first) / _step(body, place))))


def _source(computation: Computation, name: str) -> Any:
    """Where a value comes from, copies followed."""
    found = computation[name]
    while found.opcode in ("copy", "bitcast") and found.operands[0] in computation:
        found = computation[found.operands[0]]
    return found


def _place(instruction: Any) -> int | None:
    """Which of the carried values an instruction reads; None for anything else."""
    found = _PLACE.search(instruction.attributes)
    return int(found[1]) if instruction.opcode == "get-tuple-element" and found else None


def _carried(computation: Computation, loop: Any, place: int | None) -> int | None:
    """The constant that a carried value starts as."""
    start = computation.get(loop.operands[0])
    if place is None or start is None or start.opcode != "tuple":
        return None
    value = _source(computation, start.operands[place])
    return value.number if value.opcode == "constant" else None


def _step(body: Computation, place: int) -> int:
    """What the body adds to a carried counter."""
    end = list(body.values())[-1]
    added = _source(body, end.operands[place]) if end.opcode == "tuple" else end
    if added.opcode != "add":
        return 1
    numbers = [body[name].number for name in added.operands if name in body]
    return next((number for number in numbers if number), 1)
