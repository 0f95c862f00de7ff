"""How the processes of one run find each other."""

from typing import ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from adakd_jax.config.stage import Check, Conflict, Stage


def _all_or_none(coordinator: str | None, count: int | None, index: int | None) -> Conflict | None:
    given = [value is not None for value in (coordinator, count, index)]
    if any(given) and not all(given):
        return Conflict(
            "processes are given in part", "coordinator, count and index together, or none of them"
        )
    if count is not None and index is not None and index >= count:
        return Conflict(f"there is no process {index} of {count}", f"index 0 … {count - 1}")
    return None


def _with_port(coordinator: str | None) -> Conflict | None:
    if coordinator is None or coordinator.rpartition(":")[2].isdigit():
        return None
    return Conflict(f"{coordinator!r} names no port", "HOST:PORT, for instance 10.0.0.2:8476")


class ProcessesConfig(Stage):
    """Found by itself on Cloud TPU, in a SLURM step and from torchrun's variables (MASTER_ADDR,
    MASTER_PORT, WORLD_SIZE, RANK); by hand elsewhere.
    """

    checks: ClassVar[tuple[Check, ...]] = (
        Check(("coordinator", "count", "index"), _all_or_none),
        Check(("coordinator",), _with_port),
    )

    coordinator: str | None = Field(
        default=None, description="HOST:PORT of process 0, which every process can reach"
    )
    count: PositiveInt | None = Field(default=None, description="processes of the run")
    index: NonNegativeInt | None = Field(default=None, description="which of them this is, from 0")
    heartbeat_seconds: PositiveInt = Field(
        default=30, description="how long a process may be silent before the others end, in seconds"
    )
