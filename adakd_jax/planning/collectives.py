"""What devices send each other in one step, read from the compiled program."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from adakd_jax.planning.behind import is_handed_on
from adakd_jax.planning.groups import first_group
from adakd_jax.planning.hardware import Topology
from adakd_jax.planning.hlo import KINDS, Instruction, Program, Run, bytes_of, runs

# A reduce-scatter may be an all-reduce whose other parts are dropped, fused under this name.
_FUSED_SCATTER = "all-reduce-scatter"
# Between slices a collective is a message to the host, which says what it is part of.
_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')


class Collective(NamedTuple):
    """Collectives of one kind over the same devices, in one step.

    Attributes:
        kind: one of `KINDS`.
        axes: mesh axes over which they run.
        group: devices of each.
        count: how many of them.
        size: bytes that a device puts in, of all of them.
        sent: bytes that each device sends, at least: (n − 1)/n of what is gathered, scattered or
            exchanged, twice that of what is reduced to all.
        network: of these, the bytes that leave the slice, or the host of the GPU.
        links: links of a device that can carry the others at once.
    """

    kind: str
    axes: tuple[str, ...]
    group: int
    count: float
    size: float
    sent: float
    network: float
    links: int


def collectives_of(
    program: Program, mesh: Mesh, topology: Topology, unknown_rounds: float
) -> list[Collective]:
    """The collectives of a program, most bytes first, those alike together.

    Args:
        program: compiled for `mesh`.
        mesh: its devices, in the order in which the program numbers them.
        topology: where they are.
        unknown_rounds: how often the body of a loop runs whose rounds depend on data.
    """
    found: dict[tuple[str, tuple[int, ...]], list[float]] = {}
    for kind, run in _collective_runs(program, unknown_rounds):
        if run.instruction.opcode == "send":
            members = _one_in_each_slice(mesh)
        else:
            members = first_group(run.instruction.attributes, mesh.devices.size)
        if len(members) < 2:
            continue
        if kind == "all-reduce" and _scatters(run.computation, program):
            kind = "reduce-scatter"
        operands = [run.computation.get(name) for name in run.instruction.operands]
        size = sum(bytes_of(operand.shape) for operand in operands if operand is not None)
        total = found.setdefault((kind, members), [0.0, 0.0])
        total[0] += run.times
        total[1] += run.times * size
    rows = (
        _collective(kind, members, count, size, mesh, topology)
        for (kind, members), (count, size) in found.items()
    )
    return sorted(rows, key=lambda row: -row.sent)


def _collective_runs(program: Program, unknown_rounds: float) -> Iterator[tuple[str, Run]]:
    """Every collective that runs, with its kind; of one that fusions hand on, where it begins."""
    fused = {
        id(program.computations[name])
        for computation in program.computations.values()
        for instruction in computation.values()
        if instruction.opcode in ("fusion", "fusion-start")
        for name in instruction.called("calls")
    }
    for run in runs(program, unknown_rounds, into_fusions=True):
        between = _BETWEEN_SLICES.search(run.instruction.attributes)
        if run.instruction.opcode == "send" and between is not None:
            yield between[1].lower().replace("_", "-"), run
            continue
        kind = run.instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        if id(run.computation) not in fused or not is_handed_on(run.instruction, run.computation):
            yield kind, run


def _one_in_each_slice(mesh: Mesh) -> tuple[int, ...]:
    """Places of the first device of every slice: the same part of the data in each."""
    first: dict[int, int] = {}
    for place, device in enumerate(mesh.devices.flat):
        first.setdefault(getattr(device, "slice_index", 0), place)
    return tuple(first.values())


def _collective(
    kind: str,
    members: tuple[int, ...],
    count: float,
    size: float,
    mesh: Mesh,
    topology: Topology,
) -> Collective:
    group = len(members)
    factor = {
        "all-gather": group - 1.0,
        "all-reduce": 2.0 * (group - 1) / group,
        "collective-permute": 1.0,
    }.get(kind, (group - 1) / group)
    places = np.array(np.unravel_index(members, mesh.devices.shape))
    axes = [
        axis
        for axis, place in zip(mesh.axis_names, places, strict=True)
        if len(set(place.tolist())) > 1
    ]
    devices = mesh.devices.reshape(-1)[list(members)]
    place = "process_index" if topology.platform == "gpu" else "slice_index"
    places_apart = len({getattr(device, place, None) for device in devices})
    # A ring leaves each slice or host once, whichever of its devices: every device sends its share.
    leaving = places_apart / group if places_apart > 1 else 0.0
    return Collective(
        kind=kind,
        axes=tuple(axes),
        group=group,
        count=count,
        size=size,
        sent=factor * size,
        network=leaving * factor * size,
        links=_links(kind, devices, topology),
    )


def _links(kind: str, devices: Iterable, topology: Topology) -> int:
    """Links of a device along the sides that a group spans: two where it goes around the torus."""
    if kind == "collective-permute" and topology.platform != "gpu":
        return 2  # they come in pairs, one each way around a ring
    coordinates = [getattr(device, "coords", None) for device in devices]
    if topology.platform != "tpu" or None in coordinates:
        return 1
    spans = [len(set(places)) for places in zip(*coordinates, strict=True)]
    if math.prod(spans) != len(coordinates):
        return 1  # no block of neighbours
    return max(1, sum(_links_along(side, span, topology) for side, span in enumerate(spans)))


def _links_along(side: int, span: int, topology: Topology) -> int:
    if span == 1:
        return 0
    return 2 if span == topology.shape[side] and topology.connects_ends(side) else 1


def _scatters(computation: dict[str, Instruction], program: Program) -> bool:
    """Whether a computation is a fusion that keeps its own part of an all-reduce."""
    return any(
        name.startswith(_FUSED_SCATTER) and inner is computation
        for name, inner in program.computations.items()
    )
