"""Names of what is rented, and the shapes they stand for."""

import pytest

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
    ],
)
def test_names_are_translated(text, name, chips):
    topology = read_topology(text)
    assert (topology.name, topology.chips) == (name, chips)
    assert topology.platform == ("cpu" if name.startswith("cpu") else "tpu")


def test_slices_multiply_chips():
    assert read_topology("v5e-16", slices=2).chips == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5e-17", r"v5e is not rented as 17 chips; valid: v5e-1, .*v5e-16, .* v5e:4x4"),
        ("v5p-4", r"v5p is not rented as 4 cores, 2 a chip; valid: v5p-8, .*v5p-128"),
        ("h100-8", r"no product is called 'h100'; valid: .*v5p"),
        ("big pod", r"'big pod' is not a name; valid: .*v5e:4x4.*cpu:8"),
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
