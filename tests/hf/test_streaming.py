"""Weights go to their shards and back, never whole in memory; on any mesh they are the same."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.shards import ShardBuffers, on_host
from tests.hf.tiny import TINY_LLAMA, make_pretrained

ROOT = Path(__file__).parents[2]


def run(*command):
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_on_every_mesh_a_model_is_what_it_is_on_one_device(tmp_path):
    assert run("tests.hf.mesh_weights", str(tmp_path)) == "done"


@pytest.mark.slow
def test_two_processes_export_together_what_each_holds_half_of(tmp_path):
    model = make_pretrained(TINY_LLAMA)
    whole = save_pretrained(model, tmp_path / "whole")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.hf.two_processes", str(tmp_path), port, str(index)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    told = [process.communicate(timeout=400) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    # Gloo, the transport, writes to the same output.
    assert all("0.5" in output.splitlines() for output, _ in told), told
    files = {file.name: file.read_bytes() for file in whole.iterdir()}
    assert {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()} == files


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are those of /proc")
def test_memory_stays_under_twice_the_largest_tensor_and_what_is_kept():
    size = ("--mib", "128", "--width", "1024")
    told = json.loads(run("benchmarks.loading", *size, "--case", "bfloat16, fsdp", "--json"))
    (case,) = told["cases"].values()
    assert told["size"] > 2**27 and case["largest"] == told["largest"]
    assert case["kept"] >= told["size"]
    assert case["read"] < 2 * told["largest"] + case["kept"], told
    # The whole would not fit under this bound, nor would two copies under the one above.
    assert case["written"] < 2 * told["largest"] < told["size"] / 1.5, told


def test_a_buffer_is_handed_over_without_a_copy():
    buffers = ShardBuffers((3, 5), np.float32)
    for layer in range(3):
        buffers.fill((layer,), lambda buffer, index: buffer.__setitem__(..., index[0].stop))
    (buffer,) = buffers._buffers.values()
    array = buffers.finish()
    assert array.unsafe_buffer_pointer() == buffer.ctypes.data
    doubled = jax.jit(lambda x: x * 2, donate_argnums=0)(array)
    assert np.all(buffer == 5.0) and np.all(np.asarray(doubled) == 10.0)


def test_layers_come_back_one_by_one():
    stack = jax.numpy.arange(12.0).reshape(3, 2, 2)
    np.testing.assert_array_equal(on_host(stack, (1,)), [[4.0, 5.0], [6.0, 7.0]])
    np.testing.assert_array_equal(on_host(np.asarray(stack), (2,)), [[8.0, 9.0], [10.0, 11.0]])
    assert on_host(stack).shape == (3, 2, 2)
