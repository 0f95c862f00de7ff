"""How many tokens a chunk has by default, and which tokens it visits."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.distill.chunks import chunk_size_for, chunks_of
from adakd_jax.distill.devices import limits_of
from adakd_jax.planning.hardware import CHIPS

KINDS = {
    "v4": "TPU v4",
    "v5e": "TPU v5 lite",
    "v5p": "TPU v5",
    "v6e": "TPU v6 lite",
    "tpu7x": "TPU7x",
}


def a_device(kind, platform="tpu"):
    return SimpleNamespace(device_kind=kind, platform=platform)


@pytest.mark.parametrize("chip", sorted(CHIPS))
def test_limits_are_those_of_the_data_sheet(chip):
    sheet, limits = CHIPS[chip], limits_of(a_device(KINDS[chip]))
    assert limits.tokens == 128 * round(4 * sheet.flops / sheet.hbm_bandwidth / 128)
    np.testing.assert_allclose(limits.budget * 8 * sheet.devices, sheet.hbm, rtol=0.05)


@pytest.mark.parametrize(
    ("kind", "platform", "vocabulary", "expected"),
    [
        ("TPU v5 lite", "tpu", 151_936, 1024),
        ("TPU v5 lite", "tpu", 256_000, 640),  # as fits into 2 GiB
        ("NVIDIA H100 80GB HBM3", "gpu", 151_936, 1152),
        ("NVIDIA L4", "gpu", 151_936, 1664),
        ("something new", "gpu", 32_000, 1024),
        ("cpu", "cpu", 49_152, 128),
        ("cpu", "cpu", 2_048, 2688),
    ],
)
def test_defaults(kind, platform, vocabulary, expected):
    limits = limits_of(a_device(kind, platform))
    assert chunk_size_for(vocabulary, 10_000, limits) == expected
    assert chunk_size_for(vocabulary, 100, limits) == 100


@pytest.mark.parametrize("size", [3, 12, 40])
def test_every_marked_token_is_visited_once(size):
    marked = np.random.default_rng(0).random(12) < 0.5
    chunks = chunks_of(jnp.asarray(marked), size)
    visited = [chunks.places(jnp.int32(i), size) for i in range(int(chunks.count))]
    visited = np.concatenate(visited)
    np.testing.assert_array_equal(visited[visited < 12], np.flatnonzero(marked))
    assert (size < 12) or chunks.count == 1
