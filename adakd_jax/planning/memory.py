"""What a step keeps in the memory of one device, and whether that fits."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from adakd_jax.axes import TokenBatch
from adakd_jax.planning.hardware import GIB
from adakd_jax.training.state import TrainState

TEMPORARIES = "temporaries"
_UNITS = {"": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}
_NUMBER = r"([\d.]+)([KMGT]?)B?"
# Both name what the whole program would take, arguments included.
_REFUSALS = (
    rf"temporaries \({_NUMBER}\) exceeds available HBM \({_NUMBER}\)",
    rf"Used {_NUMBER} of {_NUMBER} hbm",
)


class Allocation(NamedTuple):
    """One array of a program that does not fit: bytes, shape, and what computes it."""

    size: float
    shape: str
    operation: str


class Memory(NamedTuple):
    """Of one device.

    Attributes:
        parts: bytes by name; `temporaries` are gradients, activations, gathered weights, the
            padding of arrays to tiles, and the program itself.
        capacity: bytes that a program may use; None if not known.
        fits: whether the compiler found room for everything.
        largest: largest allocations, if it did not.
    """

    parts: Mapping[str, float]
    capacity: float | None
    fits: bool
    largest: tuple[Allocation, ...] = ()

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return sum(self.parts.values())


def argument_bytes(
    state: TrainState, teacher: Any, batch: TokenBatch, base: Any
) -> dict[str, float]:
    """Bytes that one device holds of the arguments of a step, by name."""
    trained = _own_bytes(state.params)
    return {
        "student": trained + _own_bytes(base),
        "optimizer and averages": _own_bytes(state) - trained,
        "teacher": _own_bytes(teacher),
        "batch": _own_bytes(batch),
    }


def memory_of(
    arguments: Mapping[str, float], compiled: jax.stages.Compiled, capacity: float | None
) -> Memory:
    """Of a program that was compiled."""
    analysis = compiled.memory_analysis()
    assert analysis is not None  # both CPU and TPU have one
    total = (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
        + analysis.generated_code_size_in_bytes
    )
    parts = {**arguments, TEMPORARIES: max(0.0, total - sum(arguments.values()))}
    return Memory(parts, capacity, fits=capacity is None or total <= capacity)


def memory_from_refusal(arguments: Mapping[str, float], message: str) -> Memory | None:
    """Of a program that the compiler found no room for, from its message; None if the message is
    about something else.
    """
    found = next(filter(None, (re.search(form, message) for form in _REFUSALS)), None)
    if found is None:
        return None
    used = _bytes(found[1], found[2])
    parts = {**arguments, TEMPORARIES: max(0.0, used - sum(arguments.values()))}
    return Memory(parts, _bytes(found[3], found[4]), False, tuple(_allocations(message)))


def _allocations(message: str) -> list[Allocation]:
    """The largest that the compiler names, arguments left out."""
    found = []
    for block in re.split(r"\n\s*\d+\. Size: ", message)[1:]:
        size = re.match(_NUMBER, block)
        shape = re.search(r"Shape: (\S+?)\{|Shape: (\S+)", block)
        operation = re.search(r'op_name="([^"]*)"', block)
        if size is not None and "argument" not in block.partition("Allocation type:")[2][:20]:
            of_shape = next(filter(None, shape.groups()), "") if shape else ""
            name = operation[1] if operation else ""
            found.append(Allocation(_bytes(size[1], size[2]), of_shape, name))
    return found


def _bytes(number: str, unit: str) -> float:
    return float(number) * _UNITS[unit]


def _own_bytes(tree: Any) -> float:
    """Bytes of one device's part of a tree of shapes with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * jnp.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )


def gib(size: float) -> str:
    """Bytes in GiB, as tables show them."""
    return f"{size / GIB:,.2f}"
