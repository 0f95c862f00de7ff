"""Attention of one layer over packed documents, compiled for GPUs that are not there:
`python -m benchmarks.attention --topology h100:1`.

Forward and backward in bfloat16, 16 query heads and 8 key-value heads: memory besides arguments and
results, and which calls compute it. Nothing is run. Prints a table in Markdown.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from adakd_jax.axes import BATCH_AXES, HEAD_AXIS
from adakd_jax.models.attention import attention
from adakd_jax.models.config import AttentionImplementation
from adakd_jax.planning.hardware import TopologyError, read_topology
from adakd_jax.planning.inputs import devices_of
from adakd_jax.sharding import AXES

MIB = 2**20
LENGTHS = (2048, 8192, 32768)
# All but those for TPUs.
FOR_GPUS = tuple(name for name in get_args(AttentionImplementation) if name != "splash")


class Case(NamedTuple):
    """One layer: rows, their length, query and key-value heads, and what a model may add."""

    length: int
    head_dim: int = 128
    soft_cap: float | None = None
    rows: int = 1
    heads: int = 16
    kv_heads: int = 8


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attention", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--topology", default="h100:1", help="a device, as `plan` names it")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="tokens of a row")
    parser.add_argument("--head_dim", type=int, default=128, help="numbers of a head")
    parser.add_argument("--soft_cap", type=float, help="bound on scores; default: none")
    arguments = parser.parse_args()
    try:
        devices = devices_of(read_topology(arguments.topology))
    except TopologyError as error:
        parser.error(str(error))
    cases = [Case(length, arguments.head_dim, arguments.soft_cap) for length in arguments.lengths]
    for line in table(mesh_of(devices[:1]), cases, FOR_GPUS):
        print(line, flush=True)


def mesh_of(devices: Sequence[Any], shape: tuple[int, int, int] = (1, 1, 1)) -> Mesh:
    """Devices as a run has them."""
    return Mesh(np.array(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3)


def table(mesh: Mesh, cases: Sequence[Case], implementations: Sequence[str]) -> Iterator[str]:
    """Lines of Markdown, each as soon as it is known."""
    yield "| implementation | tokens | head | soft cap | temporaries, MiB | calls |"
    yield "|:--|--:|--:|--:|--:|:--|"
    for case in cases:
        for name in implementations:
            what = f"{name} | {case.length:,} | {case.head_dim} | {case.soft_cap or '–'}"
            try:
                compiled = compile_case(mesh, case, name)
            except ValueError as error:
                yield f"| {what} | – | {error} |"
                continue
            needs = compiled.memory_analysis().temp_size_in_bytes / MIB
            yield f"| {what} | {needs:,.1f} | {', '.join(calls(compiled.as_text() or '')) or '–'} |"


def compile_case(mesh: Mesh, case: Case, implementation: Any) -> jax.stages.Compiled:
    """Compile forward and backward, rows and heads split over the mesh where it divides them.

    Raises:
        ValueError: the implementation does not support the case.
    """

    def heads(count: int) -> jax.ShapeDtypeStruct:
        split = HEAD_AXIS if count % mesh.shape[HEAD_AXIS] == 0 else None
        shape = (case.rows, case.length, count, case.head_dim)
        place = NamedSharding(mesh, P(BATCH_AXES, None, split))
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place)

    def both(query: Any, key: Any, value: Any, segments: Any, direction: Any) -> Any:
        def attend(query: Any, key: Any, value: Any) -> Any:
            return attention(
                *(query, key, value),
                query_segments=segments,
                key_segments=segments,
                soft_cap=case.soft_cap,
                scale=case.head_dim**-0.5,
                implementation=implementation,
            )

        attended, pull = jax.vjp(attend, query, key, value)
        return attended, pull(direction)

    query, key = heads(case.heads), heads(case.kv_heads)
    rows = NamedSharding(mesh, P(BATCH_AXES))
    segments = jax.ShapeDtypeStruct((case.rows, case.length), jnp.int32, sharding=rows)
    with jax.set_mesh(mesh):
        return jax.jit(both).lower(query, key, key, segments, query).compile()


def calls(program: str) -> list[str]:
    """Targets of the custom calls in a compiled program."""
    return sorted(set(re.findall(r'custom_call_target="([^"]*)"', program)))


if __name__ == "__main__":
    main()
