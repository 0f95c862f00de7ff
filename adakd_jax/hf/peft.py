"""Reads adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from adakd_jax.hf.keymap import Piece, Projection, projections
from adakd_jax.hf.locate import locate
from adakd_jax.hf.model_files import read_json
from adakd_jax.hf.safetensors_file import read_tensors
from adakd_jax.models.config import DecoderConfig

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
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

    L are the layers that have the kernel. `a` is [L, in, R], `b` [L, R, out], `scale` [L], all
    float32.
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
        ModelFileError: one of its files cannot be read.
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
    settings = read_json(folder / ADAPTER_CONFIG)
    _check_plain(settings, folder)
    tensors = read_tensors(folder / ADAPTER_WEIGHTS)
    reader = _Reader(settings, tensors)
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
    return PeftAdapter(str(path_or_repo), updates, tuple(dict.fromkeys(modules)), settings)


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
    problems += _scale_problems(settings)
    start = settings.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_OTHER_WEIGHTS):
        problems.append(
            f"init_lora_weights is {start!r}, which changes the model's own weights; valid: an "
            "adapter saved with peft's path_initial_model_for_weight_conversion"
        )
    if problems:
        raise AdapterError(f"{folder} is no plain LoRA adapter: {'; '.join(problems)}")


def _scale_problems(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the settings that an adapter's factor is made of."""
    patterns = settings.get("alpha_pattern") or {}
    if not isinstance(patterns, Mapping):
        return [f"alpha_pattern is {patterns!r}, valid: a number by module"]
    alphas = {"lora_alpha": settings.get("lora_alpha", 8), **patterns}
    problems = [
        f"{name} is {value!r}, valid: a number"
        for name, value in alphas.items()
        if isinstance(value, bool) or not isinstance(value, int | float)
    ]
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            problems.append(f"alpha_pattern {pattern!r} is no regular expression: {error}")
    return problems


class _Reader:
    """Takes the tensors of one projection after the other out of a file's; notes what is wrong."""

    def __init__(self, settings: Mapping[str, Any], tensors: dict[str, np.ndarray]) -> None:
        self.settings, self.tensors = settings, tensors
        self.problems: list[str] = []

    def take(self, projection: Projection) -> dict[str, LowRank] | None:
        """Its updates by our path; None if it has none."""
        found: dict[int, tuple[np.ndarray, np.ndarray, float]] = {}
        for row, layer in enumerate(projection.layers):
            pair = self._pair(projection, projection.name.format(layer=layer))
            if pair is not None:
                found[row] = pair
        if not found:
            return None
        rank = max(len(a) for a, _, _ in found.values())
        inward, outward = projection.size
        count = len(projection.layers)
        a = np.zeros((count, inward, rank), np.float32)
        b = np.zeros((count, rank, outward), np.float32)
        scale = np.zeros(count, np.float32)
        for row, (down, up, factor) in found.items():
            a[row, :, : len(down)], b[row, : len(down)] = down.T, up.T
            scale[row] = factor
        return dict(zip(projection.paths, _parts(a, b, scale, projection.pieces), strict=True))

    def _pair(
        self, projection: Projection, module: str
    ) -> tuple[np.ndarray, np.ndarray, float] | None:
        names = [f"{PREFIX}{module}.lora_{which}.weight" for which in "AB"]
        a, b = (self.tensors.pop(name, None) for name in names)
        if a is None and b is None:
            return None
        if a is None or b is None:
            self.problems.append(f"{names[a is not None]} is missing")
            return None
        inward, outward = projection.size
        rank = len(a) if a.ndim else 0
        if not rank or a.shape != (rank, inward) or b.shape != (outward, rank):
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


def _parts(
    a: np.ndarray, b: np.ndarray, scale: np.ndarray, pieces: Sequence[Sequence[Piece]]
) -> list[LowRank]:
    """The updates of a fused projection's parts.

    Each has the whole A, unless B is block-diagonal, as `save_adapter` writes it: then its block.
    """
    count = len(pieces)
    parts = [
        LowRank(a, np.concatenate([b[:, :, p.file : p.file + p.size] for p in own], -1), scale)
        for own in pieces
    ]
    if count == 1 or a.shape[-1] % count:
        return parts
    rank = a.shape[-1] // count
    own = [slice(part * rank, (part + 1) * rank) for part in range(count)]
    inside = [np.count_nonzero(parts[part].b[:, own[part]]) for part in range(count)]
    if sum(inside) != np.count_nonzero(b) or not sum(inside):
        return parts
    return [LowRank(a[:, :, own[i]], parts[i].b[:, own[i]], scale) for i in range(count)]
