"""Host memory of reading and writing a large model: `python -m benchmarks.loading`.

It makes a Llama of the wanted size with random weights, then, in a fresh process each, reads it and
writes it again, and compares the memory that took at its peak with the bound: 2 × the largest
tensor of the file, and what the process keeps. A tiny model goes first, so that the memory of the
compiler is not counted. Linux only: peaks are those of /proc.
"""

import argparse
import functools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from rich.table import Table

from adakd_jax.console import Console
from adakd_jax.hf.keymap import parameters, tensor_names
from adakd_jax.hf.safetensors_file import TensorInfo, write_safetensors
from adakd_jax.hf.shards import row_blocks
from adakd_jax.models.families import decoder_config
from benchmarks.memory import status_bytes

MIB = 2**20
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SIZES = {"width": 2048, "ffw": 8192, "vocabulary": 32768, "heads": 16}


class Case(NamedTuple):
    """How a model is read: by how many devices of one process, and what as."""

    name: str
    devices: int
    dtype: str
    quantization: str | None = None


CASES = (
    Case("bfloat16, one device", 1, "bfloat16"),
    Case("bfloat16, fsdp = 4", 4, "bfloat16"),
    Case("float32 (a student), fsdp = 4", 4, "float32"),
    Case("int8, one device", 1, "bfloat16", "int8"),
    Case("nf4, fsdp = 4", 4, "bfloat16", "nf4"),
)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loading", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--mib", type=int, default=2048, help="size of the model (default 2048)")
    parser.add_argument("--width", type=int, default=SIZES["width"], help="of the model")
    parser.add_argument("--case", help="only those whose name contains this")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--worker", nargs=2, metavar=("FOLDER", "CASE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        folder, case = arguments.worker
        print(json.dumps(measure(Path(folder), Case(*json.loads(case)))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        largest, size = make_model(folder, arguments.mib, arguments.width)
        make_model(folder / "tiny", 1, 64)
        told = f"model: {size / MIB:,.0f} MiB, largest tensor {largest / MIB:,.0f} MiB"
        print(told, file=sys.stderr)
        cases = [case for case in CASES if arguments.case is None or arguments.case in case.name]
        measured = {case.name: _in_process(folder, case) for case in cases}
    if arguments.json:
        print(json.dumps({"largest": largest, "size": size, "cases": measured}))
    else:
        _print(measured, largest)


def make_model(folder: Path, mib: int, width: int) -> tuple[int, int]:
    """Write a model of about so many MiB, bfloat16; its largest tensor and its size in bytes."""
    ratio = width / SIZES["width"]
    hf_config: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": int(SIZES["ffw"] * ratio),
        "vocab_size": int(SIZES["vocabulary"] * ratio),
        "num_attention_heads": SIZES["heads"],
        "num_key_value_heads": SIZES["heads"],
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    }
    per_layer = (4 * width + 3 * hf_config["intermediate_size"]) * width
    embedding = hf_config["vocab_size"] * width
    layers = max(1, round((mib * MIB / BFLOAT16.itemsize - embedding) / per_layer))
    hf_config["num_hidden_layers"] = layers
    rows = parameters(decoder_config(hf_config))
    tensors = [
        TensorInfo(name, row.tensor_shape, BFLOAT16) for row in rows for name in tensor_names(row)
    ]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(hf_config))
    with (folder / "model.safetensors").open("wb") as file:
        write_safetensors(file.write, tensors, _random_rows(tensors), {"format": "pt"})
    sizes = [tensor.size for tensor in tensors]
    return max(sizes), sum(sizes)


def _random_rows(tensors: list[TensorInfo]) -> Iterator[np.ndarray]:
    """The same numbers for all blocks of a shape: drawing them all would take minutes."""
    rng = np.random.default_rng(0)

    @functools.cache
    def block(*shape: int) -> np.ndarray:
        return (0.02 * rng.standard_normal(shape, np.float32)).astype(BFLOAT16)

    for tensor in tensors:
        for rows in row_blocks(tensor.shape, BFLOAT16.itemsize):
            yield block(rows.stop - rows.start, *tensor.shape[1:])


def _in_process(folder: Path, case: Case) -> dict[str, Any]:
    devices = f"--xla_force_host_platform_device_count={case.devices}"
    worker = [sys.executable, "-m", "benchmarks.loading", "--worker", str(folder), json.dumps(case)]
    done = subprocess.run(
        worker,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": devices},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder: Path, case: Case) -> dict[str, Any]:
    """Read the model, and write it again if it can be; peaks in bytes above what was there."""
    from adakd_jax.config import MeshConfig
    from adakd_jax.models.quantized import Quantization
    from adakd_jax.sharding import make_mesh, parameter_spec, rules_of

    config = MeshConfig(fsdp=case.devices)
    mesh, rules = make_mesh(config), rules_of(config, "teacher")
    options: dict[str, Any] = {"dtype": case.dtype}
    if mesh is not None:
        options |= {"mesh": mesh, "rules": lambda path: parameter_spec(path, rules)}
    if case.quantization is not None:
        options["quantization"] = Quantization(case.quantization)
    _read_and_write(folder / "tiny", options)
    return _read_and_write(folder, options)


def _read_and_write(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    import jax

    from adakd_jax.hf.load import load_pretrained
    from adakd_jax.hf.write import save_weights

    began, before = time.perf_counter(), _start_measuring()
    model = load_pretrained(folder, **options)
    result = {"read": _peak() - before, "read_seconds": time.perf_counter() - began}
    leaves = jax.tree.leaves(model.params)
    result["kept"] = sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards)
    if "quantization" not in options:
        largest = max(math.prod(row.tensor_shape) for row in parameters(model.config))
        result["largest"] = largest * np.dtype(options["dtype"]).itemsize
        began, before = time.perf_counter(), _start_measuring()
        with tempfile.TemporaryDirectory(dir=folder) as again:
            save_weights(model.config, model.params, model.source.hf_config, again)
        result |= {"written": _peak() - before, "write_seconds": time.perf_counter() - began}
    return result


def _start_measuring() -> int:
    """Forget the peak so far; the memory that there is, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return status_bytes("VmRSS")


def _peak() -> int:
    return status_bytes("VmHWM")


def _print(measured: dict[str, dict[str, Any]], largest: int) -> None:
    table = Table(title="host memory above what was there, MiB", title_justify="left")
    for column in ("", "read", "bound", "seconds", "written", "bound", "seconds"):
        table.add_column(column, justify="right" if column else "left")
    for name, case in measured.items():
        cells = [case["read"], 2 * largest + case["kept"]]
        row = [name, *(f"{cell / MIB:,.0f}" for cell in cells), f"{case['read_seconds']:.1f}"]
        if "written" in case:
            cells = [case["written"], 2 * case["largest"]]
            row += [*(f"{cell / MIB:,.0f}" for cell in cells), f"{case['write_seconds']:.1f}"]
        table.add_row(*row)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
