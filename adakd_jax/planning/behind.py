"""Collectives that go on behind other work.

The compiler writes such a collective into each fusion that it passes: it begins in one, is handed
on by those whose products hide it, and ends in another. It runs once.
"""

from collections.abc import Mapping, Sequence

from adakd_jax.planning.hlo import KINDS, Instruction

BEGIN, END = '"AsyncCollectiveStart"', '"AsyncCollectiveDone"'
Computation = Mapping[str, Instruction]


def is_call(instruction: Instruction, targets: Sequence[str]) -> bool:
    """Whether an instruction calls one of the targets, written with their quotes."""
    return instruction.opcode == "custom-call" and any(
        target in instruction.attributes for target in targets
    )


def root_of(computation: Computation) -> Instruction:
    """The instruction whose value a computation returns."""
    return list(computation.values())[-1]


def begun_in(computation: Computation) -> Instruction | None:
    """The collective that a fusion begins, if it does nothing else."""
    root = root_of(computation)
    return computation[root.operands[0]] if is_call(root, (BEGIN,)) else None


def is_handed_on(value: Instruction, computation: Computation) -> bool:
    """Whether a fusion does nothing with a value, a parameter or a collective, but hand it on."""
    root = root_of(computation)
    return all(
        (user is root and user.opcode == "tuple")
        or is_call(user, (END,))
        or (user.opcode in KINDS and is_handed_on(user, computation))
        for user in computation.values()
        if value.name in user.operands
    )
