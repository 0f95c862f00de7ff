"""The experts of gpt-oss as llama.cpp writes them."""

import numpy as np


def in_two(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """gpt-oss's experts as its converter hands them on: gate and up apart, each [E, out, in]."""
    found = {}
    for name, tensor in tensors.items():
        base, is_bias = name.removesuffix("_bias"), name.endswith("_bias")
        if not base.endswith(("gate_up_proj", "down_proj")) or name.endswith(".weight"):
            found[name if "sinks" not in name else f"{name}.weight"] = tensor
            continue
        if not is_bias:
            tensor = tensor.swapaxes(1, 2)
        kind = "bias" if is_bias else "weight"
        if base.endswith("down_proj"):
            found[f"{base}.{kind}"] = tensor
            continue
        for turn, own in enumerate(("gate_proj", "up_proj")):
            found[f"{base.removesuffix('gate_up_proj')}{own}.{kind}"] = tensor[:, turn::2]
    return found
