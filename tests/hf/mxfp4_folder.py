"""A tiny gpt-oss whose experts are in MXFP4, as the published ones are."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from adakd_jax.hf.export import save_pretrained
from tests.hf.tiny import TINY, make_pretrained

OSS = {key: value for key, value in TINY.items() if key != "rope_theta"} | {
    "model_type": "gpt_oss",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "intermediate_size": 96,
    "eos_token_id": None,
    "pad_token_id": None,
}


def e2m1(code):
    """A value by its bits: sign, two of an exponent, one of a mantissa."""
    sign, exponent, mantissa = code >> 3, (code >> 1) & 3, code & 1
    magnitude = 0.5 * mantissa if exponent == 0 else 2.0 ** (exponent - 1) * (1 + 0.5 * mantissa)
    return -magnitude if sign else magnitude


def packed_folder(folder: Path) -> dict[str, np.ndarray]:
    """Make it; returns the weights of the packed kernels, [E, in, out], one by one."""
    model = make_pretrained(OSS)
    save_pretrained(model, folder)
    file, rng, weights = folder / "model.safetensors", np.random.default_rng(0), {}
    tensors = load_file(file)
    for name in [name for name in tensors if name.endswith(("up_proj", "down_proj"))]:
        experts, inputs, outputs = tensors.pop(name).shape
        codes = rng.integers(0, 16, (experts, outputs, inputs))
        scales = rng.integers(120, 127, (experts, outputs, inputs // 32)).astype(np.uint8)
        values = np.vectorize(e2m1)(codes) * np.repeat(2.0 ** (scales.astype(int) - 127), 32, -1)
        weights[name] = values.swapaxes(1, 2)
        low, high = codes[..., 0::2], codes[..., 1::2]
        blocks = (low | (high << 4)).astype(np.uint8)
        tensors[f"{name}_blocks"] = blocks.reshape(experts, outputs, inputs // 32, 16)
        tensors[f"{name}_scales"] = scales
    save_file(tensors, file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    how = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": how}))
    return weights
