"""Attention compiled for GPUs that are not there: what it needs, and what a mesh exchanges."""

import re

import jax
import pytest

from adakd_jax.planning.hardware import read_topology
from adakd_jax.planning.inputs import devices_of
from benchmarks.attention import FOR_GPUS, Case, compile_case, mesh_of, table

# JAX 0.12 says so whenever it compiles such a kernel.
pytestmark = pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
FUSED = [name for name in FOR_GPUS if name != "xla"]
EXCHANGES = re.compile(r" (all-gather|all-to-all|collective-permute)(?:-start)?\(")


@pytest.fixture
def absent():
    """Meshes of absent GPUs, whose programs cannot be read back from the compilation cache."""
    pytest.importorskip("jax_cuda13_plugin", reason="needs the cuda13 extra")
    kept = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)

    def mesh(name, shape=(1, 1, 1)):
        count = shape[0] * shape[1] * shape[2]
        return mesh_of(devices_of(read_topology(f"{name}:{count}")), shape)

    yield mesh
    jax.config.update("jax_enable_compilation_cache", kept)


def test_the_table_says_what_each_needs_or_why_it_cannot():
    mesh = mesh_of(jax.devices()[:1])
    case = Case(16, 8, soft_cap=9.0, heads=2, kv_heads=1)
    head, _, xla, cudnn = table(mesh, [case], ("xla", "cudnn"))
    assert head.count("|") == xla.count("|") == cudnn.count("|") == 7
    assert re.fullmatch(r"\| xla \| 16 \| 8 \| 9.0 \| 0\.\d \| – \|", xla)
    assert cudnn.startswith("| cudnn | 16 | 8 | 9.0 | – |") and "no soft cap" in cudnn


@pytest.mark.gpu_compile
@pytest.mark.parametrize("gpu", ["h100", "a100-80g", "l40s"])
@pytest.mark.parametrize("name", FUSED)
def test_scores_are_never_in_memory(absent, name, gpu):
    case = Case(2048)
    compiled = compile_case(absent(gpu), case, name)
    # At most a mask of two bytes for each query and key, where the scores would be 32 of them.
    assert compiled.memory_analysis().temp_size_in_bytes < 2.1 * case.length**2


@pytest.mark.gpu_compile
@pytest.mark.parametrize(
    ("shape", "kv_heads"), [((2, 1, 1), 4), ((1, 2, 1), 4), ((1, 1, 2), 4), ((1, 1, 4), 2)]
)
@pytest.mark.parametrize("name", FUSED)
def test_each_device_computes_its_own_rows_and_heads(absent, name, shape, kv_heads):
    case = Case(256, 64, rows=4, heads=8, kv_heads=kv_heads)
    program = compile_case(absent("h100", shape), case, name).as_text()
    assert "fmha" in program or "triton" in program
    exchanged = [line for line in program.splitlines() if EXCHANGES.search(line)]
    # Only keys and values, and only where there are fewer of their heads than devices.
    assert bool(exchanged) == (kv_heads < shape[2])
    assert not any(",8,64]" in line for line in exchanged)
