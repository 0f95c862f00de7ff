"""The chunked loss by chunk size, compiled for a device that is not there, by its data sheet:
`python -m benchmarks.chunk_sweep --topology v5e:1x1`.

Loss and gradients of Qwen2-7B → 1.5B under AdaKD with r = 1: bytes that the compiled program
moves, seconds that these and the products would take at the data sheet's rates, and memory. Nothing
is measured. Prints a table in Markdown as docs/chunks.md has it.
"""

import argparse
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from adakd_jax.config import DistillConfig
from adakd_jax.distill import Head, Signals, vocab_distillation_loss
from adakd_jax.distill.chunks import chunk_size_for
from adakd_jax.distill.devices import limits_of
from adakd_jax.planning.flops import head_operations, head_work
from adakd_jax.planning.hardware import Chip, TopologyError, read_topology
from adakd_jax.planning.hlo import read_program
from adakd_jax.planning.inputs import devices_of
from adakd_jax.planning.traffic import bytes_moved
from benchmarks.flops import LARGE_STUDENT, LARGE_TEACHER, LARGE_VOCABULARY

CHUNKS = (128, 256, 512, 1024, 2048, 4096)
CONFIG = DistillConfig()


class Point(NamedTuple):
    """One chunk size: bytes moved, and bytes besides arguments and results."""

    chunk: int
    moved: float
    temporaries: float


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chunk_sweep", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--topology", default="v5e:1x1", help="a device, as `plan` names it")
    parser.add_argument("--tokens", type=int, default=4096, help="response tokens on the device")
    parser.add_argument("--chunks", type=int, nargs="+", default=CHUNKS, help="tokens of a chunk")
    arguments = parser.parse_args()
    try:
        topology = read_topology(arguments.topology)
        device = devices_of(topology)[0]
    except TopologyError as error:
        parser.error(str(error))
    if topology.chip is None:
        parser.error(f"topology {topology.name}: no data sheet of this device is known")
    for line in table(device, topology.chip, arguments.tokens, arguments.chunks):
        print(line, flush=True)


def table(device: Any, chip: Chip, tokens: int, chunks: tuple[int, ...]) -> Iterator[str]:
    """Lines of Markdown, each as soon as it is known."""
    widths = LARGE_STUDENT.width, LARGE_TEACHER.width
    operations = head_operations(head_work(CONFIG), *widths, LARGE_VOCABULARY) * tokens
    default = chunk_size_for(LARGE_VOCABULARY, tokens, limits_of(device))
    yield f"{device.device_kind}, {tokens:,} tokens; chosen: {default:,}"
    yield ""
    yield "| tokens a chunk | GB moved | ms for these | ms for the products | temporaries, GiB |"
    yield "|--:|--:|--:|--:|--:|"
    for chunk in chunks:
        found = compile_point(device, tokens, chunk)
        seconds = found.moved / chip.hbm_bandwidth, operations / chip.flops
        yield (
            f"| {chunk:,} | {found.moved / 1e9:.0f} | {1e3 * seconds[0]:.0f} | "
            f"{1e3 * seconds[1]:.0f} | {found.temporaries / 2**30:.2f} |"
        )


def compile_point(device: Any, tokens: int, chunk: int) -> Point:
    """Compile the loss and its gradients with chunks of one size."""
    here = SingleDeviceSharding(device)

    def shape(dtype: Any, *sides: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sides, dtype, sharding=here)

    def value(student, weight, teacher, teacher_weight, labels, ratio):
        heads = (Head(w, LARGE_VOCABULARY) for w in (weight, teacher_weight))
        signals = Signals(ratio, jnp.float32(0.5))
        return vocab_distillation_loss(
            CONFIG, student, next(heads), teacher, next(heads), labels, signals, chunk_size=chunk
        )[0]

    narrow, ids, wide = jnp.bfloat16, jnp.int32, jnp.float32
    operands = (
        shape(narrow, tokens, LARGE_STUDENT.width),
        shape(wide, LARGE_VOCABULARY, LARGE_STUDENT.width),
        shape(narrow, tokens, LARGE_TEACHER.width),
        shape(narrow, LARGE_VOCABULARY, LARGE_TEACHER.width),
        shape(ids, tokens),
        shape(wide),
    )
    compiled = jax.jit(jax.grad(value, (0, 1))).lower(*operands).compile()
    memory: Any = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    program = read_program(compiled.as_text() or "")
    moved = bytes_moved(program, tokens / chunk)
    return Point(chunk, moved, memory.peak_memory_in_bytes - held)


if __name__ == "__main__":
    main()
