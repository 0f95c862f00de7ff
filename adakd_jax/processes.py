"""The processes of one run: how they join, agree and end. With a single one, nothing happens."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from adakd_jax.config.processes import ProcessesConfig
from adakd_jax.data import progress

JOIN_SECONDS = 300
_TORCHRUN = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")
_SLURM_STEP = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")


def join(config: ProcessesConfig) -> None:
    """Find the other processes of this run; to be called before JAX looks for devices.

    In the order of precedence: what the configuration says; torchrun's variables; a SLURM step of
    several tasks; a TPU VM, alone or in a pod, of one or several slices. Else this process is
    alone. One that dies ends the others within about `heartbeat_seconds`.

    Raises:
        RuntimeError: the others did not come within five minutes.
    """
    options = _how_to_join(config, os.environ)
    if options is None:
        return
    # SIGTERM is for the train loop to see, which saves; JAX's own service would take it away.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        **options,
        initialization_timeout=JOIN_SECONDS,
        heartbeat_timeout_seconds=config.heartbeat_seconds,
    )
    if not is_first():
        progress.silence()


def _how_to_join(config: ProcessesConfig, environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Arguments of `jax.distributed.initialize`: empty where it finds them itself; None for a
    process that is alone.
    """
    if config.coordinator is not None:
        return _by_hand(config.coordinator, config.count, config.index)
    if all(name in environ for name in _TORCHRUN) and int(environ["WORLD_SIZE"]) > 1:
        address = f"{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}"
        joined = _by_hand(address, int(environ["WORLD_SIZE"]), int(environ["RANK"]))
        if int(environ.get("LOCAL_WORLD_SIZE", "1")) > 1:  # several on this machine: a GPU each
            joined["local_device_ids"] = [int(environ["LOCAL_RANK"])]
        return joined
    in_step = all(name in environ for name in _SLURM_STEP)
    if in_step and int(environ.get("SLURM_NTASKS", "1")) > 1:
        return {}
    return {} if _on_tpu(environ) else None


def _by_hand(address: str, count: int | None, index: int | None) -> dict[str, Any]:
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
        "cluster_detection_method": "deactivate",
    }


def _on_tpu(environ: Mapping[str, str]) -> bool:
    """Whether this machine has TPU chips that JAX is to use."""
    wanted = environ.get("JAX_PLATFORMS", "tpu")
    if "tpu" not in wanted or find_spec("libtpu") is None:
        return False
    return "TPU_WORKER_HOSTNAMES" in environ or any(Path("/dev").glob("accel[0-9]*"))


def is_first() -> bool:
    """Whether this process speaks and writes for all of them."""
    return jax.process_index() == 0


def first_says(value: bool) -> bool:
    """What process 0 found, on all processes, which then do the same."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.bool_(value)))


def first_number(value: int) -> int:
    """What process 0 counts, from 0 to 2³¹ − 1, on all processes."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def wait_for_all(what: str) -> None:
    """Return when every process is here; `what` names the place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def any_of(mesh: Mesh | None) -> Callable[[bool], bool]:
    """A question to all processes, asked once a step: whether one of them said yes a step ago.

    The answer is a step late, so that nobody waits for it; all processes get the same. A process
    that is alone gets it at once.
    """
    if mesh is None or jax.process_count() == 1:
        return lambda wish: wish
    split, whole = NamedSharding(mesh, P(mesh.axis_names)), NamedSharding(mesh, P())
    largest = jax.jit(lambda wishes: wishes.max(), out_shardings=whole)
    pending: list[jax.Array] = []

    def ask(wish: bool) -> bool:
        here = np.full(len(mesh.local_devices), wish, np.int8)
        pending.append(largest(jax.make_array_from_process_local_data(split, here)))
        return len(pending) > 1 and bool(pending.pop(0))

    return ask


@contextmanager
def ending_together(prog: str) -> Iterator[None]:
    """Run a part of a program that ends on all processes together, or on each at once.

    A process that fails must not wait for the others to end, as JAX would at exit: they wait for
    it. It says what happened and is gone; the others notice, and end as well.
    """
    try:
        yield
        wait_for_all("the end")
    except BaseException as error:
        if jax.process_count() == 1 or (isinstance(error, SystemExit) and not error.code):
            raise
        code = error.code if isinstance(error, SystemExit) else 1
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        print(
            f"{prog}: process {jax.process_index()} of {jax.process_count()} ends, and so do the "
            f"others ({_reason(error)}); the same command continues from the last checkpoint",
            file=sys.stderr,
        )
        leave(code if isinstance(code, int) else 1)


def leave(code: int) -> None:
    """End this process now, without waiting for others."""
    with suppress(RuntimeError):  # a signal may have come while something was being printed
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "see above"
    lost = isinstance(error, jax.errors.JaxRuntimeError)
    return "another process has ended or cannot be reached" if lost else type(error).__name__
