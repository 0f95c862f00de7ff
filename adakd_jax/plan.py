"""`python -m adakd_jax.plan --config X.yaml --topology v5e:4x4`, or `h100:8`: does a run fit, and
how fast is it, before any device is rented.
"""

import os
import sys
from collections.abc import Sequence

from adakd_jax.config.parse import parse
from adakd_jax.config.plan import PlanConfig

PROG = "python -m adakd_jax.plan"
DESCRIPTION = """\
Compiles the train step of a configuration for devices that are not there, and prints for each of
them: memory by what it holds, and whether it fits; operations, bytes and collectives of a step; and
an estimate, by the chip's data sheet, of seconds a step, tokens a second, MFU, days and chip-hours.
What does not fit is told with what is largest and what to change. TPUs are compiled for by libtpu
(the extra tpu), GPUs by JAX's CUDA plugin (cuda13), on any Linux machine. Neither weights nor data
are read: give --examples, --tokens_per_example and --response_share for what only the data would
tell. Several topologies, separated by commas, end in a table of all."""
SEARCH = """for each topology, find the mesh and the cheapest remat with which the batch fits, and
the most rows a device has room for; --mesh.fsdp or --mesh.tensor above 1 fix the mesh"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, compile, print. Exit codes: 0 all topologies fit, 1 one does not, 2 wrong settings."""
    config, flags = parse(
        PlanConfig,
        sys.argv[1:] if argv is None else argv,
        prog=PROG,
        description=DESCRIPTION,
        extra_flags={"search": " ".join(SEARCH.split())},
    )
    _use_only_the_cpu(config)
    # Imported late: help and mistakes in settings do not wait for JAX.
    from adakd_jax.eval.command import user_errors
    from adakd_jax.planning.command import run_plans

    with user_errors(PROG):
        fits = run_plans(config, search=flags["search"])
    raise SystemExit(0 if fits else 1)


def _use_only_the_cpu(config: PlanConfig) -> None:
    """Before JAX starts, whatever JAX_PLATFORMS says: no real accelerator is taken, libtpu asks
    nobody for one, and the CUDA plugin compiles for GPUs that are not there.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
    # Of a GPU's program that does not fit the compiler warns; the plan says so itself.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    import jax

    jax.config.update("jax_platforms", "cpu")
    counts = [name.partition(":")[2] for name in config.topology if name.startswith("cpu:")]
    devices = max((int(count) for count in counts if count.isdigit()), default=1)
    jax.config.update("jax_num_cpu_devices", max(1, devices))


if __name__ == "__main__":
    main()
