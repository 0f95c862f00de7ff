"""The adapters of a model as files in PEFT's format."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from adakd_jax.hf.keymap import Projection, projections
from adakd_jax.hf.peft import ADAPTER_CONFIG, ADAPTER_WEIGHTS, PREFIX
from adakd_jax.hf.safetensors_file import TensorInfo, write_safetensors
from adakd_jax.hf.shards import on_host
from adakd_jax.models.config import DecoderConfig, Lora


def adapter_tensors(
    config: DecoderConfig, lora: Lora, layers: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The adapters of a model under PEFT's names: A [r, in], B [out, r].

    Args:
        config: the model.
        lora: its adapters' settings.
        layers: `params["layers"]`, or the part of it that adapters are in.
    """
    tensors = {}
    for projection in _targeted(config, lora):
        pairs = []
        for path in projection.paths:
            block, name = path.split(".")
            adapter = layers[block][name]["adapter"]
            pairs.append((on_host(adapter["a"]), on_host(adapter["b"])))
        for row, layer in enumerate(projection.layers):
            a = np.concatenate([a[row].T for a, _ in pairs])
            b = _joined(projection, [b[row].T for _, b in pairs])
            module = PREFIX + projection.name.format(layer=layer)
            tensors[f"{module}.lora_A.weight"] = np.ascontiguousarray(a, np.float32)
            tensors[f"{module}.lora_B.weight"] = np.ascontiguousarray(b, np.float32)
    return tensors


def _joined(projection: Projection, parts: Sequence[np.ndarray]) -> np.ndarray:
    """B of a projection: where it is fused, each part of the outputs has a rank of its own."""
    ranks = [part.shape[1] for part in parts]
    joined = np.zeros((projection.size[1], sum(ranks)), np.float32)
    column = 0
    for part, pieces, rank in zip(parts, projection.pieces, ranks, strict=True):
        for piece in pieces:
            own = part[piece.own : piece.own + piece.size]
            joined[piece.file : piece.file + piece.size, column : column + rank] = own
        column += rank
    return joined


def _targeted(config: DecoderConfig, lora: Lora) -> list[Projection]:
    return [each for each in projections(config) if set(each.paths) <= set(lora.targets)]


def adapter_config(
    config: DecoderConfig, lora: Lora, base: str | None, revision: str | None = None
) -> dict[str, Any]:
    """The `adapter_config.json` of a model's adapters; `base` names the model without them."""
    targeted = _targeted(config, lora)
    fused = {each.module: len(each.paths) for each in targeted if len(each.paths) > 1}
    alpha = int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha
    return {
        "alpha_pattern": {module: alpha * parts for module, parts in fused.items()},
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": not any(each.transpose for each in projections(config)),
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": alpha,
        "lora_dropout": lora.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": lora.rank,
        "rank_pattern": {module: lora.rank * parts for module, parts in fused.items()},
        "revision": revision,
        "target_modules": _shortest_names(projections(config), targeted),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def _shortest_names(known: Sequence[Projection], targeted: Sequence[Projection]) -> list[str]:
    """`q_proj` rather than `self_attn.q_proj`, where that means no other projection."""
    names = []
    for projection in targeted:
        short = projection.module.rpartition(".")[2]
        alone = all(each in targeted for each in known if each.is_called(short))
        names.append(short if alone else projection.module)
    return list(dict.fromkeys(names))


def write_adapter(
    folder: epath.Path,
    tensors: Mapping[str, np.ndarray],
    settings: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> None:
    """Write both files; `metadata` goes into the weights' header."""
    infos = [TensorInfo(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()]
    with (folder / ADAPTER_WEIGHTS).open("wb") as file:
        write_safetensors(file.write, infos, tensors.values(), {"format": "pt", **metadata})
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (folder / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
