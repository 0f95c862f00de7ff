"""Bytes that one device moves to and from its memory in one step, read from the compiled program.

What an instruction reads and writes counts, once each time it runs: a fusion is one instruction,
of an array that it only slices, the slice counts, and of one that it updates in place, the part.
Arrays that the compiler keeps in faster memory do not count, nor does scratch space of libraries.
"""

import re

from adakd_jax.planning.behind import BEGIN, END, is_call
from adakd_jax.planning.fused import SLICING, UPDATING, fused, in_memory, update_of
from adakd_jax.planning.hlo import Instruction, Program, bytes_of, elements_of, runs

# They move nothing, or what they run counts by itself.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"),
    *("while", "conditional", "call", "partition-id", "replica-id", "opt-barrier", "domain"),
    *("async-start", "async-update", "async-done", "add-dependency"),
}
# Calls that reserve memory or rename it.
_FREE_CALLS = ('"AllocateBuffer"', '"ConcatBitcast"', '"AssumeGatherIndicesInBound"', BEGIN, END)
# The last result of a call of cuBLAS, cuDNN and the like: bytes to work in.
_SCRATCH = re.compile(r"[us]8\[\d*\](\{0[^}]*\})?")


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
        total += run.times * _moved(_begun(instruction), run.computation, program)
    return total


def _begun(instruction: Instruction) -> Instruction:
    """The instruction that an asynchronous one begins, with the result that it will have."""
    base = instruction.opcode.removesuffix("-start")
    if base == instruction.opcode:
        return instruction
    parts = elements_of(instruction.shape)
    if base == "copy":
        shape = parts[0]
    elif base == "all-reduce":
        shape = instruction.shape
    else:  # what it reads, its result, and what the two ends share
        shape = parts[1]
    return instruction._replace(opcode=base, shape=shape)


def _moved(
    instruction: Instruction, computation: dict[str, Instruction], program: Program
) -> float:
    shapes = [computation[name].shape for name in instruction.operands if name in computation]
    opcode, written = instruction.opcode, in_memory(instruction.shape)
    if is_call(instruction, _FREE_CALLS):
        return 0.0
    if opcode in SLICING:
        read = bytes_of(instruction.shape) if in_memory(shapes[0]) else 0.0
        return written + read + sum(in_memory(shape) for shape in shapes[1:])
    if opcode in UPDATING:
        update = update_of(instruction, shapes, program)
        target = update.read + update.written if in_memory(shapes[0]) else 0.0
        return target + sum(in_memory(shape) for shape in shapes[update.targets :])
    if opcode == "fusion":
        [name] = instruction.called("calls")
        return fused(program.computations[name], shapes, instruction.shape, program)
    if opcode == "custom-call":
        results = elements_of(instruction.shape)
        if len(results) > 1 and _SCRATCH.fullmatch(results[-1]):
            written -= in_memory(results[-1])
    return written + sum(in_memory(shape) for shape in shapes)
