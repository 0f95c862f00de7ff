"""Chips by data sheet, and the names under which they are rented."""

import math
import re
from typing import NamedTuple

from adakd_jax.planning.gpu_targets import A_HOST, GPUS, GpuTarget, memory_fraction

GIB = 2**30


class Chip(NamedTuple):
    """One TPU chip (sources: see `CHIPS`), or one GPU (see `gpu_targets.GPUS`).

    Attributes:
        hbm: bytes of memory that a program may use: of a TPU, what the compiler allows; of a GPU,
            what JAX takes.
        flops: peak operations a second in bfloat16.
        hbm_bandwidth: bytes a second.
        link_bandwidth: bytes a second over one link to a neighbour, one way; of a GPU, to all of
            its host together.
        network_bandwidth: bytes a second to other slices or hosts.
        sides: dimensions of the torus; 0 where there is none.
        ring: chips along a side at which its ends are connected: for three dimensions a multiple
            of it, for two dimensions it itself.
        cores: what product names count a chip as.
        devices: JAX devices that a chip is.
        options: what libtpu is told besides the name of the topology.
    """

    hbm: float
    flops: float
    hbm_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float
    sides: int
    ring: int
    cores: int = 1
    devices: int = 1
    options: tuple[tuple[str, str], ...] = ()


# Peak, memory bandwidth and torus: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}. A link is
# the documented bidirectional bandwidth of a chip over twice its links, the network the documented
# bandwidth of a chip (v5e: of a pod over its chips); for v4, which documents neither, both are from
# "How to Scale Your Model" (jax-ml.github.io/scaling-book/tpus): 45 GB/s, and 25 GB/s a host of
# four chips. Memory: what libtpu 0.0.42 reports as the capacity when a program exceeds it.
MEGACORE = (("chip_config_name", "megacore"),)
CHIPS = {
    "v4": Chip(30.75 * GIB, 275e12, 1.2e12, 45e9, 6.25e9, 3, 4, cores=2, options=MEGACORE),
    "v5e": Chip(15.75 * GIB, 197e12, 819e9, 50e9, 3.125e9, 2, 16),
    "v5p": Chip(95.74 * GIB, 459e12, 2765e9, 100e9, 6.25e9, 3, 4, cores=2),
    "v6e": Chip(31.25 * GIB, 918e12, 1638e9, 100e9, 12.5e9, 2, 16),
    "tpu7x": Chip(189.5 * GIB, 2307e12, 7380e9, 100e9, 12.5e9, 3, 4, cores=2, devices=2),
}
# Product names say how many chips, or cores, a slice has; these are the shapes it then has.
SHAPES = {
    2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    3: (
        *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16"),
        *("8x16x16", "16x16x16", "16x16x24"),
    ),
}
SPELLINGS = {"v5litepod": "v5e", "v5lite": "v5e", "v7x": "tpu7x"}


class TopologyError(ValueError):
    """A topology that does not exist; the message says which do."""


class Topology(NamedTuple):
    """Where a run is planned for.

    Attributes:
        name: as libtpu spells it, v5e:4x4, or h100:8, h100:8x4, cpu:8.
        kind: v5e, h100, or cpu.
        shape: chips along each side of one slice; GPUs of a host, and hosts.
        slices: how many slices.
        chip: its data sheet; None for a CPU and for a TPU without one here.
        gpu: what is known of a GPU besides.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    slices: int = 1
    chip: Chip | None = None
    gpu: GpuTarget | None = None

    @property
    def chips(self) -> int:
        """Of all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def platform(self) -> str:
        """Of its devices: "tpu", "gpu" or "cpu"."""
        if self.gpu is not None:
            return "gpu"
        return "cpu" if self.kind == "cpu" else "tpu"

    @property
    def unit(self) -> str:
        """What its chips are called: "chip", "GPU" or "device"."""
        return {"tpu": "chip", "gpu": "GPU", "cpu": "device"}[self.platform]

    @property
    def title(self) -> str:
        """Name and number of chips."""
        unit = f"{self.unit}s" if self.chips > 1 else self.unit
        slices = f"{self.slices} slices of {self.name}" if self.slices > 1 else self.name
        return f"{slices} ({self.chips} {unit})"

    def connects_ends(self, side: int) -> bool:
        """Whether the chips along a side form a ring."""
        if self.chip is None or self.gpu is not None:
            return False
        if self.chip.sides == 2:
            return self.shape[side] == self.chip.ring
        return all(length % self.chip.ring == 0 for length in self.shape)


def read_topology(text: str, slices: int = 1) -> Topology:
    """A topology from libtpu's name for it (v5e:4x4), a product name (v5litepod-16), GPUs of a host
    (h100:8) or of several (h100:8x4), or cpu:N.

    Raises:
        TopologyError: the text is none of these.
        ValueError: the environment's share of a GPU's memory is no share.
    """
    name = text.strip().lower()
    if (kind := name.partition(":")[0]) in GPUS:
        return _gpus(text, name, kind, slices)
    prefix = re.sub(r"-\d+$", "", kind)
    if alike := [gpu for gpu in GPUS if prefix and gpu.startswith(prefix)]:
        valid = ", ".join(f"{gpu}:{A_HOST}" for gpu in alike)
        raise TopologyError(f"topology {text!r} is not a name; valid: {valid}")
    if match := re.fullmatch(r"cpu:(\d+)", name):
        if slices > 1:
            raise TopologyError(f"mesh.slices: {text} has no slices; valid: 1")
        return Topology(name, "cpu", (int(match[1]),))
    if match := re.fullmatch(r"([a-z]+\d*[a-z]*):(\d+(?:x\d+){1,2})", name):
        kind = SPELLINGS.get(match[1], match[1])
        shape = tuple(int(side) for side in match[2].split("x"))
    elif match := re.fullmatch(r"([a-z]+\d*[a-z]*)-(\d+)", name):
        kind = SPELLINGS.get(match[1], match[1])
        shape = _shape_of_product(text, kind, int(match[2]))
    else:
        raise TopologyError(f"topology {text!r} is not a name; valid: {VALID}")
    sides = "x".join(map(str, shape))
    return Topology(f"{kind}:{sides}", kind, shape, slices, CHIPS.get(kind))


def _gpus(text: str, name: str, kind: str, slices: int) -> Topology:
    match = re.fullmatch(r"[^:]+:([1-9]\d*)(?:x([1-9]\d*))?", name)
    if match is None:
        raise TopologyError(
            f"topology {text!r}: how many GPUs? Valid: {kind}:1, {kind}:{A_HOST}, or hosts of "
            f"{A_HOST}, {kind}:{A_HOST}x4"
        )
    each, hosts = int(match[1]), int(match[2] or 1)
    if each > A_HOST:
        raise TopologyError(
            f"topology {text!r}: a host has up to {A_HOST} GPUs; valid: {kind}:{A_HOST}, or "
            f"{math.ceil(each / A_HOST)} hosts, {kind}:{A_HOST}x{math.ceil(each / A_HOST)}"
        )
    if slices > 1:
        raise TopologyError(
            f"mesh.slices: {slices} of {text}, but GPUs have no slices; valid: 1, and the hosts in "
            f"the topology, {kind}:{each}x{hosts * slices}"
        )
    gpu = GPUS[kind]
    chip = Chip(
        hbm=gpu.memory * memory_fraction(),
        flops=gpu.flops,
        hbm_bandwidth=gpu.bandwidth,
        link_bandwidth=gpu.link_bandwidth,
        network_bandwidth=gpu.network_bandwidth,
        sides=0,
        ring=0,
    )
    name = f"{kind}:{each}x{hosts}" if hosts > 1 else f"{kind}:{each}"
    return Topology(name, kind, (each, hosts), chip=chip, gpu=gpu)


def _shape_of_product(text: str, kind: str, count: int) -> tuple[int, ...]:
    if kind not in CHIPS:
        raise TopologyError(f"topology {text!r}: no product is called {kind!r}; valid: {VALID}")
    chip = CHIPS[kind]
    sizes: dict[int, tuple[int, ...]] = {}
    for shape in SHAPES[chip.sides]:
        sides = tuple(int(side) for side in shape.split("x"))
        sizes[math.prod(sides) * chip.cores] = sides
    if count not in sizes:
        unit = "chips" if chip.cores == 1 else f"cores, {chip.cores} a chip"
        products = ", ".join(f"{kind}-{size}" for size in sizes)
        raise TopologyError(
            f"topology {text!r}: {kind} is not rented as {count} {unit}; valid: {products}, or a "
            f"shape of your own, {kind}:{SHAPES[chip.sides][3]}"
        )
    return sizes[count]


VALID = (
    "a shape of chips as v5e:4x4 or v5p:4x4x4, a product as v5litepod-16 or v5p-128 "
    f"({', '.join(CHIPS)}), GPUs of a host as h100:8 or of several hosts as h100:8x4 "
    f"({', '.join(GPUS)}), or cpu:8"
)
