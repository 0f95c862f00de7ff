"""Parameters from named tensors, and safetensors files from parameters, through the key table."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from safetensors import SafetensorError
from safetensors.numpy import save_file

from adakd_jax.data.progress import track
from adakd_jax.hf.keymap import (
    HARMLESS,
    OPTIONAL_PREFIXES,
    Parameter,
    parameters,
    tensor_names,
)
from adakd_jax.models.config import DecoderConfig

Place = Callable[[str, np.ndarray], jax.Array]
SAFETENSORS_INDEX = "model.safetensors.index.json"
SIZE_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


class WeightsError(ValueError):
    """A checkpoint does not fit its configuration; the message names every tensor at fault."""


def params_from_tensors(
    config: DecoderConfig,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    *,
    dtype: DTypeLike = jnp.float32,
    place: Place | None = None,
    source: str = "the checkpoint",
) -> dict[str, Any]:
    """Stack a checkpoint's tensors into the decoder's parameters, reading one tensor at a time.

    Args:
        config: the decoder; its family's key table says which tensors there must be.
        shapes: shape of every tensor of the checkpoint by Hugging Face name. Names may lack the
            base model's prefix.
        read: returns one tensor by its name in `shapes`.
        dtype: of the parameters.
        place: moves a finished parameter, given its dotted path, to where it shall live; by default
            the default device.
        source: what error messages call the checkpoint.

    Returns:
        parameters as nested dicts.

    Raises:
        WeightsError: names all missing, extra and mis-shaped tensors together.
    """
    rows = parameters(config)
    names = _resolve(rows, shapes)
    _check(config, rows, names, shapes, read, source)
    params: dict[str, Any] = {}
    for row in track(rows, "loading weights", len(rows)):
        stacked = np.empty(row.shape, dtype)
        targets = stacked if row.entry.stacked else stacked[None]
        for target, name in zip(targets, tensor_names(row), strict=True):
            target[...] = _ours(row, read(names[name]))
        *parents, last = row.entry.path.split(".")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = jnp.asarray(stacked) if place is None else place(row.entry.path, stacked)
    return params


def _ours(row: Parameter, tensor: np.ndarray) -> np.ndarray:
    """Our part of a tensor, in our orientation."""
    part = np.split(tensor, row.entry.parts, axis=-1)[row.entry.part]
    return part.T if row.entry.transpose else part


def _resolve(rows: list[Parameter], shapes: Mapping[str, Any]) -> dict[str, str]:
    """Table name → name in the checkpoint, for those that are there."""
    names = {}
    for name in (name for row in rows for name in tensor_names(row)):
        bare = [name.removeprefix(prefix) for prefix in OPTIONAL_PREFIXES]
        found = [candidate for candidate in (name, *bare) if candidate in shapes]
        if found:
            names[name] = found[0]
    return names


def _check(
    config: DecoderConfig,
    rows: list[Parameter],
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    source: str,
) -> None:
    wanted = {name: row.tensor_shape for row in rows for name in tensor_names(row)}
    extra = set(shapes) - set(names.values())
    extra = {name for name in extra if not any(re.search(known, name) for known in HARMLESS)}
    problems = []
    if config.tied and "lm_head.weight" in extra:
        extra.remove("lm_head.weight")
        embedding = names.get(rows[0].entry.name)
        if embedding and not np.array_equal(read("lm_head.weight"), read(embedding)):
            problems.append(
                f"lm_head.weight differs from {embedding}, but the configuration ties them"
            )
    missing = sorted(set(wanted) - set(names))
    if missing:
        problems.append(f"{len(missing)} missing: {', '.join(missing)}")
    if extra:
        problems.append(f"{len(extra)} extra: {', '.join(sorted(extra))}")
    wrong = [
        f"{name} is {list(shapes[names[name]])}, should be {list(shape)}"
        for name, shape in wanted.items()
        if name in names and tuple(shapes[names[name]]) != shape
    ]
    if wrong:
        problems.append(f"{len(wrong)} of wrong shape: {', '.join(wrong)}")
    if problems:
        raise WeightsError(
            f"{source} does not fit its {config.family} configuration: {'; '.join(problems)}"
        )


class _Tensor(NamedTuple):
    """A tensor to write: its parts, in order, and which layer of them."""

    name: str
    rows: tuple[Parameter, ...]
    layer: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows[0].tensor_shape


def save_weights(
    config: DecoderConfig,
    params: Mapping[str, Any],
    hf_config: Mapping[str, Any],
    folder: str | Path,
    *,
    max_shard_size: int | str = "5GB",
) -> list[Path]:
    """Write `config.json` and safetensors under Hugging Face names, one shard in memory at a time.

    Args:
        config: the decoder that `params` belong to.
        params: nested dicts of arrays; written in the dtype they have.
        hf_config: the content of `config.json`; its `dtype` is replaced by that of `params`.
        folder: made if absent.
        max_shard_size: bytes, or a number with KB, MB or GB (powers of ten); a larger single tensor
            has a shard alone.

    Returns:
        the files written: one `model.safetensors`, or several shards and their index, and
            `config.json`.

    Raises:
        ValueError: `max_shard_size` is not a size, or `params` do not have the shapes of `config`.
        OSError: a file cannot be written; names it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    leaves = {
        ".".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    rows = parameters(config)
    _check_leaves(rows, leaves)
    tensors = list(_tensors(rows))
    sizes = {
        t.name: math.prod(t.shape) * leaves[t.rows[0].entry.path].dtype.itemsize for t in tensors
    }
    shards = _shards(tensors, sizes, _bytes(max_shard_size))
    files, index = [], {}
    for number, shard in enumerate(track(shards, "writing weights", len(shards)), start=1):
        suffix = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        files.append(folder / f"model{suffix}.safetensors")
        content = {tensor.name: _theirs(tensor, leaves) for tensor in shard}
        try:
            save_file(content, files[-1], metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{files[-1]} cannot be written: {error}") from error
        index |= {tensor.name: files[-1].name for tensor in shard}
    if len(shards) > 1:
        total = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": index}
        files.append(_write_json(folder / SAFETENSORS_INDEX, total))
    dtype = leaves["embed.embedding"].dtype.name
    described = {key: value for key, value in hf_config.items() if key != "torch_dtype"}
    files.append(_write_json(folder / "config.json", described | {"dtype": dtype}))
    return files


def _check_leaves(rows: list[Parameter], leaves: Mapping[str, Any]) -> None:
    wanted = {row.entry.path: row.shape for row in rows}
    got = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    wrong = [
        f"{path} is {got.get(path, 'missing')}, should be {wanted.get(path, 'absent')}"
        for path in sorted(wanted | got)
        if wanted.get(path) != got.get(path)
    ]
    if wrong:
        raise ValueError(f"params do not fit the configuration: {'; '.join(wrong)}")


def _tensors(rows: list[Parameter]) -> Iterator[_Tensor]:
    """The tensors of a checkpoint, layer by layer so that a shard holds whole layers."""
    grouped: dict[str, list[Parameter]] = {}
    for row in rows:
        grouped.setdefault(row.entry.name, []).append(row)
    groups = [tuple(sorted(group, key=lambda row: row.entry.part)) for group in grouped.values()]
    layered = [group for group in groups if group[0].entry.stacked]
    for group in groups:
        if not group[0].entry.stacked:
            yield _Tensor(group[0].entry.name, group, None)
    for layer in range(layered[0][0].shape[0]):
        for group in layered:
            yield _Tensor(group[0].entry.name.format(layer=layer), group, layer)


def _theirs(tensor: _Tensor, leaves: Mapping[str, Any]) -> np.ndarray:
    """A tensor as the file holds it: parts joined, in torch's orientation."""
    parts = []
    for row in tensor.rows:
        leaf = leaves[row.entry.path]
        part = np.asarray(leaf if tensor.layer is None else leaf[tensor.layer])
        parts.append(part.T if row.entry.transpose else part)
    return np.ascontiguousarray(np.concatenate(parts, axis=-1))


def _shards(tensors: list[_Tensor], sizes: Mapping[str, int], limit: int) -> list[list[_Tensor]]:
    shards: list[list[_Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if shards[-1] and filled + sizes[tensor.name] > limit:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += sizes[tensor.name]
    return shards


def _bytes(size: int | str) -> int:
    if isinstance(size, int):
        return size
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB)", size.strip().upper())
    if match is None:
        raise ValueError(
            f"max_shard_size {size!r} is no size; valid: a number of bytes, or '500MB', '5GB'"
        )
    return int(float(match[1]) * SIZE_UNITS[match[2]])


def _write_json(path: Path, content: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
