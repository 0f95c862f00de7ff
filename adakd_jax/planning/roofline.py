"""How long a step takes at least, from what it computes, moves and sends: estimates, no
measurements.
"""

from collections.abc import Sequence
from typing import NamedTuple

from adakd_jax.planning.collectives import Collective
from adakd_jax.planning.hardware import Chip
from adakd_jax.planning.work import Operations

SECONDS_A_DAY = 24 * 3600.0


class Roofline(NamedTuple):
    """Seconds of a step that each part of a chip is busy for, at its peak.

    Attributes:
        compute: the matrix units.
        memory: reading and writing memory.
        links: sending to neighbours.
        network: sending to other slices or hosts.
    """

    compute: float
    memory: float
    links: float
    network: float

    @property
    def overlapped(self) -> float:
        """Seconds of a step if everything happens at once: no step is faster."""
        return max(self)

    @property
    def in_turn(self) -> float:
        """Seconds of a step if nothing overlaps."""
        return sum(self)

    @property
    def bound(self) -> str:
        """The part that is busy for longest."""
        return max(self._fields, key=lambda name: getattr(self, name))


class Speed(NamedTuple):
    """What seconds a step mean for a run; days and hours are None if its length is not known."""

    seconds: float
    tokens_a_second: float
    mfu: float
    days: float | None
    chip_hours: float | None


def roofline(
    chip: Chip, chips: int, operations: Operations, moved: float, collectives: Sequence[Collective]
) -> Roofline:
    """The time of each part.

    Args:
        chip: its data sheet.
        chips: how many share the operations.
        operations: of one step, on all devices.
        moved: bytes to and from memory, of one device.
        collectives: of one device.
    """
    return Roofline(
        compute=operations.executed / (chips * chip.flops),
        memory=moved * chip.devices / chip.hbm_bandwidth,
        links=sum(
            (one.sent - one.network) / (one.links * chip.link_bandwidth) for one in collectives
        )
        * chip.devices,
        network=sum(one.network for one in collectives) * chip.devices / chip.network_bandwidth,
    )


def speed(
    seconds: float, tokens: int, operations: Operations, chip: Chip, chips: int, steps: int | None
) -> Speed:
    """Throughput, share of the peak, and length of a run.

    Args:
        seconds: of a step.
        tokens: of a step, padding included.
        operations: those needed count for the share of the peak.
        chip: its data sheet.
        chips: how many.
        steps: of the run, if known.
    """
    whole = None if steps is None else steps * seconds
    return Speed(
        seconds=seconds,
        tokens_a_second=tokens / seconds,
        mfu=operations.needed / (seconds * chips * chip.flops),
        days=None if whole is None else whole / SECONDS_A_DAY,
        chip_hours=None if whole is None else whole * chips / 3600,
    )
