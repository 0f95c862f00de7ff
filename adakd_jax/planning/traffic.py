"""Bytes that one device moves to and from its memory in one step, read from the compiled program.

What an instruction reads and writes counts, once each time it runs: a fusion is one instruction,
and of an array that it only slices, the slice counts. Arrays that the compiler keeps in faster
memory do not count.
"""

from adakd_jax.planning.hlo import Instruction, Program, arrays_of, runs

# They move nothing, or what they run counts by itself.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"),
    *("while", "conditional", "call", "partition-id", "replica-id", "opt-barrier", "domain"),
    *("async-start", "async-update", "async-done", "add-dependency"),
}
# Calls that reserve memory, rename it, or mark where a collective begins and ends.
_FREE_CALLS = (
    *("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound"),
    *("AsyncCollectiveStart", "AsyncCollectiveDone"),
)
_SLICING = ("dynamic-slice", "gather", "slice")
_PASSING = ("bitcast", "reshape", "convert", "copy")


def bytes_moved(program: Program, unknown_rounds: float) -> float:
    """Bytes read and written by one device.

    Args:
        program: what is run.
        unknown_rounds: how often the body of a loop runs whose rounds depend on data.
    """
    total = 0.0
    for run in runs(program, unknown_rounds):
        instruction = run.instruction
        if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
            continue
        total += run.times * _moved(instruction, run.computation, program)
    return total


def _moved(
    instruction: Instruction, computation: dict[str, Instruction], program: Program
) -> float:
    shapes = [computation[name].shape for name in instruction.operands if name in computation]
    written = _in_memory(instruction.shape)
    if instruction.opcode == "custom-call" and any(
        f'"{name}"' in instruction.attributes for name in _FREE_CALLS
    ):
        return 0.0
    if instruction.opcode in _SLICING:
        return 2.0 * written
    if instruction.opcode == "dynamic-update-slice":
        return 2.0 * _in_memory(shapes[1])
    if instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start":
        return written  # its result names what it reads, too
    if instruction.opcode != "fusion":
        return written + sum(_in_memory(shape) for shape in shapes)
    inner = program.computations.get((instruction.called("calls") or [""])[0], {})
    return _fused(inner, shapes, written)


def _fused(inner: dict[str, Instruction], shapes: list[str], written: float) -> float:
    """What a fusion moves: the slices of an operand it slices, the part of one it updates."""
    users: dict[str, list[Instruction]] = {}
    for instruction in inner.values():
        for name in instruction.operands:
            users.setdefault(name, []).append(instruction)
    parameters = [one for one in inner.values() if one.opcode == "parameter"]
    total = written
    for parameter in parameters:
        whole = _in_memory(shapes[parameter.number or 0])
        if not whole:
            continue
        reached = _users_of(parameter.name, users)
        if reached and all(one.opcode in _SLICING for one in reached):
            total += min(whole, sum(_size(one.shape) for one in reached))
        elif reached and all(one.opcode == "dynamic-update-slice" for one in reached):
            part = sum(_size(inner[one.operands[1]].shape) for one in reached)
            # Updated in place: neither read nor written as a whole.
            total += part - min(written, whole)
        else:
            total += whole
    return max(total, 0.0)


def _users_of(name: str, users: dict[str, list[Instruction]]) -> list[Instruction]:
    """Who uses a value, views of it followed."""
    found = []
    for user in users.get(name, []):
        found += _users_of(user.name, users) if user.opcode in _PASSING else [user]
    return found


def _in_memory(shape: str) -> float:
    return sum(array.size for array in arrays_of(shape) if array.in_memory)


def _size(shape: str) -> float:
    return sum(array.size for array in arrays_of(shape))
