"""Adapters in PEFT's format: a folder of `adapter_config.json` and `adapter_model.safetensors`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from safetensors.numpy import load_file

from adakd_jax.hf.keymap import Projection, projections
from adakd_jax.hf.locate import locate
from adakd_jax.hf.safetensors_file import TensorInfo, write_safetensors
from adakd_jax.hf.shards import on_host
from adakd_jax.models.config import DecoderConfig, Lora

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
# What would make an adapter more than x·W + scale·x·A·B, and the values that do not.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "use_dora": (False,),
    "use_qalora": (False,),
    "use_bdlora": (None, False),
    "lora_bias": (False,),
    "modules_to_save": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, []),
    "layer_replication": (None, []),
    "alora_invocation_tokens": (None, []),
    "monteclora_config": (None,),
    "kasa_config": (None,),
    "velora_config": (None,),
}
# These starts change the weights beside the adapter too: without them it means something else.
_OTHER_WEIGHTS = ("pissa", "olora", "corda", "loftq", "lora_ga")


class AdapterError(ValueError):
    """An adapter cannot be read, or does not fit the model; the message says where and why."""


class LowRank(NamedTuple):
    """What is added to a kernel [L, in, out] of ours: scale·A·B; zeros where a layer has nothing.

    `a` is [L, in, R], `b` [L, R, out], `scale` [L], all float32.
    """

    a: np.ndarray
    b: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter as a folder holds it: what it adds, by our path, such as `attn.query`.

    `modules` are the names of its projections inside a layer, such as `self_attn.q_proj`.
    """

    name: str
    updates: Mapping[str, LowRank]
    modules: tuple[str, ...]
    settings: Mapping[str, Any]


def read_adapter(path_or_repo: epath.PathLike, config: DecoderConfig) -> PeftAdapter:
    """Read an adapter of a model; nothing is unpickled.

    Args:
        path_or_repo: a folder in PEFT's format, or anything else `locate` finds.
        config: the model it is for.

    Raises:
        ModelNotFoundError: it cannot be reached.
        AdapterError: it is no LoRA adapter, of a kind that is not supported, or does not fit the
            model; names every setting or tensor at fault.
    """
    folder = locate(path_or_repo, files=(ADAPTER_CONFIG, ADAPTER_WEIGHTS))
    absent = [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (folder / name).is_file()]
    if absent:
        raise AdapterError(
            f"{folder} has no {' and no '.join(absent)}; valid: a folder that peft's "
            "save_pretrained wrote, with safetensors (pickled weights are never read)"
        )
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    _check_plain(settings, folder)
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    reader = _Reader(settings, tensors, config.num_layers)
    updates: dict[str, LowRank] = {}
    modules = []
    for projection in projections(config):
        if (read := reader.take(projection)) is not None:
            updates |= read
            modules.append(projection.module)
    problems = reader.problems + [f"{name} belongs to no projection" for name in sorted(tensors)]
    if not updates and not problems:
        problems = ["it has no tensors"]
    if problems:
        raise AdapterError(
            f"adapter {path_or_repo} does not fit the {config.family} model of "
            f"{config.num_layers} layers and width {config.embed_dim}: {'; '.join(problems)}"
        )
    return PeftAdapter(str(path_or_repo), updates, tuple(modules), settings)


def _check_plain(settings: Mapping[str, Any], folder: Path) -> None:
    """Refuse what is more than an addition of A·B."""
    if settings.get("peft_type") != "LORA":
        raise AdapterError(
            f"{folder} is an adapter of type {settings.get('peft_type')!r}; valid: LORA"
        )
    problems = [
        f"{key} is {settings[key]!r}, valid: {valid[0]!r}"
        for key, valid in _PLAIN.items()
        if key in settings and settings[key] not in valid
    ]
    start = settings.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_OTHER_WEIGHTS):
        problems.append(
            f"init_lora_weights is {start!r}, which changes the model's own weights; valid: an "
            "adapter saved with peft's path_initial_model_for_weight_conversion"
        )
    if problems:
        raise AdapterError(f"{folder} is no plain LoRA adapter: {'; '.join(problems)}")


class _Reader:
    """Takes the tensors of one projection after the other out of a file's; notes what is wrong."""

    def __init__(
        self, settings: Mapping[str, Any], tensors: dict[str, np.ndarray], layers: int
    ) -> None:
        self.settings, self.tensors, self.layers = settings, tensors, layers
        self.problems: list[str] = []

    def take(self, projection: Projection) -> dict[str, LowRank] | None:
        """Its updates by our path; None if it has none."""
        found: dict[int, tuple[np.ndarray, np.ndarray, float]] = {}
        for layer in range(self.layers):
            pair = self._pair(projection, projection.name.format(layer=layer))
            if pair is not None:
                found[layer] = pair
        if not found:
            return None
        rank = max(len(a) for a, _, _ in found.values())
        inward, outward = projection.size
        a = np.zeros((self.layers, inward, rank), np.float32)
        b = np.zeros((self.layers, rank, outward), np.float32)
        scale = np.zeros(self.layers, np.float32)
        for layer, (down, up, factor) in found.items():
            a[layer, :, : len(down)], b[layer, : len(down)] = down.T, up.T
            scale[layer] = factor
        return dict(zip(projection.paths, _parts(a, b, scale, len(projection.paths)), strict=True))

    def _pair(
        self, projection: Projection, module: str
    ) -> tuple[np.ndarray, np.ndarray, float] | None:
        names = [f"{_PREFIX}{module}.lora_{which}.weight" for which in "AB"]
        a, b = (self.tensors.pop(name, None) for name in names)
        if a is None and b is None:
            return None
        if a is None or b is None:
            self.problems.append(f"{names[a is not None]} is missing")
            return None
        inward, outward = projection.size
        rank = a.shape[0]
        if a.shape != (rank, inward) or b.shape != (outward, rank):
            self.problems.append(
                f"{module}: A {list(a.shape)} and B {list(b.shape)}, should be [r, {inward}] and "
                f"[{outward}, r]"
            )
            return None
        return a.astype(np.float32), b.astype(np.float32), self._scale(module, rank)

    def _scale(self, module: str, rank: int) -> float:
        """α/r, or α/√r; α may be that of a pattern, which peft matches at the end of the name."""
        alpha = self.settings.get("lora_alpha", 8)
        for pattern, value in (self.settings.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = value
                break
        return alpha / (rank**0.5 if self.settings.get("use_rslora") else rank)


def _parts(a: np.ndarray, b: np.ndarray, scale: np.ndarray, count: int) -> list[LowRank]:
    """The updates of a fused projection's parts.

    Each has the whole A, unless B is block-diagonal, as `save_adapter` writes it: then its block.
    """
    rank, width = a.shape[-1] // count, b.shape[-1] // count
    blocks = b.reshape(*b.shape[:2], count, width)
    parts = [LowRank(a, np.ascontiguousarray(blocks[:, :, part]), scale) for part in range(count)]
    if count == 1 or a.shape[-1] % count:
        return parts
    own = [slice(part * rank, (part + 1) * rank) for part in range(count)]
    inside = [np.count_nonzero(parts[part].b[:, own[part]]) for part in range(count)]
    if sum(inside) != np.count_nonzero(b) or not sum(inside):
        return parts
    return [LowRank(a[:, :, own[i]], parts[i].b[:, own[i]], scale) for i in range(count)]


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
        for layer in range(config.num_layers):
            a = np.concatenate([a[layer].T for a, _ in pairs])
            b = _block_diagonal([b[layer].T for _, b in pairs])
            module = _PREFIX + projection.name.format(layer=layer)
            tensors[f"{module}.lora_A.weight"] = np.ascontiguousarray(a, np.float32)
            tensors[f"{module}.lora_B.weight"] = np.ascontiguousarray(b, np.float32)
    return tensors


def _block_diagonal(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Of a fused projection: each part of the outputs has a rank of its own."""
    rows, columns = (sum(block.shape[axis] for block in blocks) for axis in (0, 1))
    joined = np.zeros((rows, columns), np.float32)
    row = column = 0
    for block in blocks:
        joined[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
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
        "fan_in_fan_out": config.family == "gpt2",
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
