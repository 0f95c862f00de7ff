"""Names of what is rented, and the shapes they stand for."""

import pytest

from adakd_jax.planning.gpu_targets import GPUS, target_config
from adakd_jax.planning.hardware import TopologyError, read_topology


@pytest.mark.parametrize(
    ("text", "name", "chips"),
    [
        ("v5e-16", "v5e:4x4", 16),
        ("v5litepod-16", "v5e:4x4", 16),
        ("v5e-256", "v5e:16x16", 256),
        ("v5p-128", "v5p:4x4x4", 64),  # counts cores
        ("v4-32", "v4:2x2x4", 16),
        ("v6e-256", "v6e:16x16", 256),
        ("tpu7x-128", "tpu7x:4x4x4", 64),
        ("V5P:2x2x1", "v5p:2x2x1", 4),
        ("cpu:8", "cpu:8", 8),
        ("h100:1", "h100:1", 1),
        ("H100:8x4", "h100:8x4", 32),  # GPUs of a host, and hosts
        ("a100-40g:4", "a100-40g:4", 4),
        ("l40s:8x1", "l40s:8", 8),
    ],
)
def test_names_are_translated(text, name, chips):
    topology = read_topology(text)
    assert (topology.name, topology.chips) == (name, chips)
    kind = name.partition(":")[0]
    assert topology.platform == ("gpu" if kind in GPUS else "cpu" if kind == "cpu" else "tpu")


def test_slices_multiply_chips():
    assert read_topology("v5e-16", slices=2).chips == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5e-17", r"v5e is not rented as 17 chips; valid: v5e-1, .*v5e-16, .* v5e:4x4"),
        ("v5p-4", r"v5p is not rented as 4 cores, 2 a chip; valid: v5p-8, .*v5p-128"),
        ("x9-8", r"no product is called 'x9'; valid: .*v5p.*h100:8"),
        ("big pod", r"'big pod' is not a name; valid: .*v5e:4x4.*h100, .*cpu:8"),
        ("h100-8", r"'h100-8' is not a name; valid: h100:8, h100-pcie:8$"),
        ("a100:8x4", r"'a100:8x4' is not a name; valid: a100-40g:8, a100-80g:8$"),
        ("h100", r"'h100': how many GPUs\? Valid: h100:1, h100:8, or hosts of 8, h100:8x4"),
        ("h100:4x2x2", r"'h100:4x2x2': how many GPUs"),
        ("h100:12", r"a host has up to 8 GPUs; valid: h100:8, or 2 hosts, h100:8x2"),
    ],
)
def test_other_names_are_refused_with_those_that_exist(text, message):
    with pytest.raises(TopologyError, match=message):
        read_topology(text)


@pytest.mark.parametrize(
    ("text", "ends"),
    [("v5e:8x16", (False, True)), ("v5p:2x2x4", (False,) * 3), ("v5p:4x4x8", (True,) * 3)],
)
def test_which_sides_are_rings(text, ends):
    topology = read_topology(text)
    assert tuple(topology.connects_ends(side) for side in range(len(ends))) == ends


def test_gpus_have_hosts_in_place_of_slices():
    with pytest.raises(TopologyError, match=r"GPUs have no slices; .* h100:8x6"):
        read_topology("h100:8x3", slices=2)


def test_what_jax_may_take_of_a_gpu_is_as_in_a_run(monkeypatch):
    for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        monkeypatch.delenv(name, raising=False)
    memory = GPUS["a100-80g"].memory
    assert read_topology("a100-80g:8").chip.hbm == 0.75 * memory
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".9")
    assert read_topology("a100-80g:8").chip.hbm == 0.9 * memory
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "75")
    with pytest.raises(ValueError, match=r"XLA_CLIENT_MEM_FRACTION: '75' .* above 0, up to 1"):
        read_topology("a100-80g:8")


def test_what_the_compiler_is_told_of_a_gpu():
    text = target_config(GPUS["l40s"])
    assert "cuda_compute_capability { major: 8 minor: 9 feature_extension: NONE }" in text
    for fact in ("core_count: 142", "memory_bandwidth: 864000000000", "l2_cache_size: 100663296",
                 "shared_memory_per_core: 102400", "threads_per_core_limit: 1536"):  # fmt: skip
        assert f"  {fact}\n" in text
    hopper = target_config(GPUS["h100"])
    assert "major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES" in hopper
