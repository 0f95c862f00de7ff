"""NVIDIA GPUs to compile for that are not there: what XLA has to know of each, and data sheets."""

import os
from collections.abc import Mapping
from typing import NamedTuple

MIB = 2**20
# What JAX takes of a GPU's memory when it starts, unless one of these says otherwise.
DEFAULT_FRACTION = 0.75
FRACTION_VARIABLES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


class GpuTarget(NamedTuple):
    """One GPU. Sources: see `GPUS`.

    Attributes:
        product: name of the device, as the driver tells it.
        capability: CUDA compute capability.
        cores: streaming multiprocessors.
        clock: GHz.
        memory: bytes.
        bandwidth: of the memory, bytes a second.
        l2_cache: bytes.
        flops: peak operations a second in bfloat16, dense.
        link_bandwidth: bytes a second to the other GPUs of a host, one way: NVLink, or PCIe.
        network_bandwidth: bytes a second to other hosts, a GPU's share.
        fpus: float32 units of a multiprocessor.
        threads: of a multiprocessor, at most.
        shared_memory: bytes of a multiprocessor; a block may have 1 KiB less.
        link: what connects the GPUs of a host.
    """

    product: str
    capability: tuple[int, int]
    cores: int
    clock: float
    memory: float
    bandwidth: float
    l2_cache: int
    flops: float
    link_bandwidth: float
    network_bandwidth: float
    fpus: int = 128
    threads: int = 2048
    shared_memory: int = 228 * 1024
    link: str = "NVLink"


# Multiprocessors, clock, memory, its bandwidth and L2 cache: XLA's own gpu_specs
# (github.com/openxla/xla, xla/backends/gpu/target_config/specs), which are what CUDA reports on the
# device. They have no L40S: its are from NVIDIA's data sheet (142 multiprocessors, 48 GB, 864 GB/s)
# and the Ada architecture white paper (clock, 96 MiB of L2 cache, 100 KiB of shared memory); of the
# 48 GB CUDA reports 44.40 GiB.
# Peak: NVIDIA's data sheets, dense, half of what is printed "with sparsity": A100 312 TFLOPS, H100
# SXM and H200 989.5, H100 PCIe 756.5, L40S 362; B200 and B300: DGX data sheets, eight GPUs.
# Links, same sheets, half of the bidirectional figure: NVLink 600 GB/s (A100), 900 (H100 SXM and
# H200), 1,800 (B200, B300); PCIe 64 GB/s (L40S, fourth generation), 128 (H100 PCIe, fifth).
# Network, a GPU's share of its host's: DGX A100 200 Gbit/s a GPU, DGX H100, H200 and B200 400, DGX
# B300 800; L40S and H100 PCIe, which no DGX has: 400 Gbit/s a host of eight (AWS g6e.48xlarge).
GPUS: Mapping[str, GpuTarget] = {
    "a100-40g": GpuTarget(
        *("NVIDIA A100-SXM4-40GB", (8, 0), 108, 1.41, 42331013120, 1555.2e9, 40 * MIB),
        *(312e12, 300e9, 25e9),
        fpus=64,
        shared_memory=164 * 1024,
    ),
    "a100-80g": GpuTarget(
        *("NVIDIA A100-SXM4-80GB", (8, 0), 108, 1.41, 85100068864, 2039.04e9, 40 * MIB),
        *(312e12, 300e9, 25e9),
        fpus=64,
        shared_memory=164 * 1024,
    ),
    "h100": GpuTarget(
        *("NVIDIA H100 80GB HBM3", (9, 0), 132, 1.98, 84942979072, 3352.32e9, 50 * MIB),
        *(989.5e12, 450e9, 50e9),
    ),
    "h100-pcie": GpuTarget(
        *("NVIDIA H100 PCIe", (9, 0), 114, 1.755, 84942979072, 2039.04e9, 50 * MIB),
        *(756.5e12, 64e9, 6.25e9),
        link="PCIe",
    ),
    "h200": GpuTarget(
        *("NVIDIA H200 141GB HBM3e", (9, 0), 132, 1.98, 151397597184, 4800e9, 50 * MIB),
        *(989.5e12, 450e9, 50e9),
    ),
    "b200": GpuTarget(
        *("NVIDIA B200", (10, 0), 148, 1.965, 191514411008, 7672.32e9, 132644864),
        *(2250e12, 900e9, 50e9),
    ),
    "b300": GpuTarget(
        *("NVIDIA B300", (10, 3), 158, 1.965, 297021865984, 7936e9, 135528448),
        *(2250e12, 900e9, 100e9),
    ),
    "l40s": GpuTarget(
        # JAX looks up by name what an absent GPU's kernels may do, and knows only the L40 by name.
        *("NVIDIA L40 (L40S)", (8, 9), 142, 2.52, 44.4 * 2**30, 864e9, 96 * MIB),
        *(362e12, 32e9, 6.25e9),
        threads=1536,
        shared_memory=100 * 1024,
        link="PCIe",
    ),
}
A_HOST = 8  # GPUs that a host has at most
# The compiler asks for versions of cuDNN and CUDA. These have all that the train step uses.
_VERSIONS = """\
dnn_version_info { major: 9 minor: 10 patch: 0 }
runtime_version { major: 13 minor: 0 patch: 0 }
"""


def target_config(gpu: GpuTarget) -> str:
    """What XLA compiles for, as text of its GpuTargetConfigProto."""
    major, minor = gpu.capability
    # Code for Hopper and later may use instructions that no other GPU has, as in a run on one.
    features = "ACCELERATED_FEATURES" if major >= 9 else "NONE"
    facts = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 48 * 1024,
        "shared_memory_per_core": gpu.shared_memory,
        "shared_memory_per_block_optin": gpu.shared_memory - 1024,
        "threads_per_core_limit": gpu.threads,
        "core_count": gpu.cores,
        "fpus_per_core": gpu.fpus,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 2**16 - 1,
        "block_dim_limit_z": 2**16 - 1,
        "memory_bandwidth": int(gpu.bandwidth),
        "l2_cache_size": gpu.l2_cache,
        "clock_rate_ghz": gpu.clock,
        "device_memory_size": int(gpu.memory),
        "registers_per_core_limit": 2**16,
        "registers_per_block_limit": 2**16,
    }
    lines = "\n".join(f"  {name}: {value}" for name, value in facts.items())
    capability = f"major: {major} minor: {minor} feature_extension: {features}"
    return (
        f"gpu_device_info {{\n{lines}\n  cuda_compute_capability {{ {capability} }}\n}}\n"
        f'platform_name: "CUDA"\n{_VERSIONS}device_description_str: "{gpu.product}"\n'
    )


def memory_fraction() -> float:
    """Share of a GPU's memory that JAX takes for itself, as the environment says.

    Raises:
        ValueError: the variable is not a number above 0 and up to 1.
    """
    for name in FRACTION_VARIABLES:
        text = os.environ.get(name, "")
        if not text:
            continue
        try:
            share = float(text)
        except ValueError:
            share = 0.0
        if not 0.0 < share <= 1.0:
            raise ValueError(f"{name}: {text!r} is no share of the memory; valid: above 0, up to 1")
        return share
    return DEFAULT_FRACTION
