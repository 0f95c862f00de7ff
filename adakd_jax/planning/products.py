"""Operations of the products in a compiled program: its dots, in fusions too, and the calls of
cuBLAS and cuDNN; two a multiply-add.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from adakd_jax.planning.hlo import Instruction, Program, elements_of, runs, sides_of

_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
# Products of cuDNN's attention, each of every query with every key that it sees.
_FORWARD, _BACKWARD = 2, 5
Computation = Mapping[str, Instruction]


def compiled_operations(program: Program, unknown_rounds: float) -> float:
    """Operations of one device's products in one run of a program for a GPU or a CPU.

    Kernels that are none of these, Pallas's for one, are left out.

    Args:
        program: what is run.
        unknown_rounds: how often the body of a loop runs whose rounds depend on data.
    """
    return sum(
        run.times * _operations(run.instruction, run.computation)
        for run in runs(program, unknown_rounds, into_fusions=True)
    )


def _operations(instruction: Instruction, computation: Computation) -> float:
    opcode = instruction.opcode.removesuffix("-start")
    if opcode == "dot":
        contracted = _CONTRACTED.search(instruction.attributes)
        places = contracted[1] if contracted else ""
        return _product(instruction, computation, [int(one) for one in places.split(",") if one])
    if opcode != "custom-call":
        return 0.0
    target = _TARGET.search(instruction.attributes)
    name = target[1] if target else ""
    if name.startswith("__cublas$"):
        numbers = _settings(instruction, "gemm_backend_config")["dot_dimension_numbers"]
        places = [int(one) for one in numbers["lhs_contracting_dimensions"]]
        return _product(instruction, computation, places)
    if name.startswith("__cudnn$fmha"):
        return _attention(instruction, computation, name)
    return 0.0


def _product(instruction: Instruction, computation: Computation, contracted: list[int]) -> float:
    left = sides_of(computation[instruction.operands[0]].shape)
    result = sides_of(elements_of(instruction.shape)[0])
    return 2.0 * math.prod(result) * math.prod(left[place] for place in contracted)


def _attention(instruction: Instruction, computation: Computation, name: str) -> float:
    settings = _settings(instruction, "cudnn_fmha_backend_config")
    *outer, queries, keys = (int(n) for n in settings["intermediate_tensor_shape"]["dimensions"])
    pairs = queries * keys
    if "CAUSAL" in settings["mask_type"]:
        window = int(settings.get("sliding_window_length") or 0) or keys
        pairs = sum(min(seen, window) for seen in range(1, queries + 1))
    size = sides_of(computation[instruction.operands[0]].shape)[-1]
    products = _BACKWARD if name.endswith("Backward") else _FORWARD
    return 2.0 * products * math.prod(outer) * pairs * size


def _settings(instruction: Instruction, name: str) -> dict[str, Any]:
    """What a call tells its library."""
    start = instruction.attributes.index("backend_config=") + len("backend_config=")
    return json.JSONDecoder().raw_decode(instruction.attributes, start)[0][name]
