"""Safetensors files and a config.json from parameters, through the key table, tensor by tensor."""

import itertools
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from adakd_jax.data.progress import track
from adakd_jax.hf.keymap import Parameter, layer_at, name_at, parameters, places_of
from adakd_jax.hf.safetensors_file import TensorInfo, write_safetensors
from adakd_jax.hf.shards import on_host, row_blocks
from adakd_jax.models.config import DecoderConfig
from adakd_jax.processes import is_first
from adakd_jax.user_path import user_path

SAFETENSORS_INDEX = "model.safetensors.index.json"
SIZE_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
_METADATA = {"format": "pt"}
Leaves = Mapping[str, Any]


class _Tensor(NamedTuple):
    """A tensor to write: its parts, in order, and which place in them it has."""

    info: TensorInfo
    parts: tuple[Parameter, ...]
    place: tuple[int, ...]


def save_weights(
    config: DecoderConfig,
    params: Mapping[str, Any],
    hf_config: Mapping[str, Any],
    folder: epath.PathLike,
    *,
    max_shard_size: int | str = "5GB",
) -> list[epath.Path]:
    """Write safetensors under Hugging Face names, one tensor in memory at a time, and then
    `config.json`.

    Every process of a run must call it: the first one writes, and all give it what they hold.

    Args:
        config: the decoder that `params` belong to.
        params: nested dicts of arrays; written in the dtype they have.
        hf_config: the content of `config.json`; its `dtype` is replaced by that of `params`.
        folder: made if absent; local, or remote as in gs://bucket/folder.
        max_shard_size: bytes, or a number with KB, MB or GB (powers of ten); a larger single tensor
            has a shard alone.

    Returns:
        the files: one `model.safetensors`, or several shards and their index, and `config.json`.

    Raises:
        ValueError: `max_shard_size` is not a size, or `params` do not have the shapes of `config`.
        OSError: a file cannot be written; names it.
    """
    leaves = {
        ".".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    rows = parameters(config)
    _check_leaves(rows, leaves)
    shards = _shards(_tensors(rows, leaves), _bytes(max_shard_size))
    folder = user_path(folder)
    names = [_file_name(number, len(shards)) for number in range(1, len(shards) + 1)]
    files = _write_shards([folder / name for name in names], shards, leaves)
    texts = {}
    if len(shards) > 1:
        texts[SAFETENSORS_INDEX] = _index(dict(zip(names, shards, strict=True)))
    described = {key: value for key, value in hf_config.items() if key != "torch_dtype"}
    texts["config.json"] = described | {"dtype": leaves["embed.embedding"].dtype.name}
    for name, content in texts.items():
        if is_first():
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (folder / name).write_text(text, encoding="utf-8")
    return [*files, *(folder / name for name in texts)]


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


def _tensors(rows: list[Parameter], leaves: Leaves) -> Iterator[_Tensor]:
    """The tensors of a checkpoint, layer by layer so that a shard holds whole layers."""
    grouped: dict[tuple[str, str], list[Parameter]] = {}
    for row in rows:
        grouped.setdefault((row.entry.name, row.entry.block), []).append(row)
    groups = [tuple(sorted(group, key=lambda row: row.entry.part)) for group in grouped.values()]

    def tensor(group: tuple[Parameter, ...], place: tuple[int, ...]) -> _Tensor:
        entry, shape = group[0].entry, group[0].tensor_shape
        info = TensorInfo(name_at(group[0], place), shape, leaves[entry.path].dtype)
        return _Tensor(info, group, place)

    placed = [(place, group) for group in groups for place in places_of(group[0])]
    # What is of no layer first, then each layer's, in the order of the table.
    placed.sort(key=lambda each: layer_at(each[1][0], each[0]))
    yield from (tensor(group, place) for place, group in placed)


def _shards(tensors: Iterable[_Tensor], limit: int) -> list[list[_Tensor]]:
    shards: list[list[_Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if shards[-1] and filled + tensor.info.size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.info.size
    # Every tensor begins at a multiple of its item size, as the library lays them out.
    return [sorted(shard, key=lambda tensor: -tensor.info.dtype.itemsize) for shard in shards]


def _file_name(number: int, count: int) -> str:
    return f"model-{number:05d}-of-{count:05d}.safetensors" if count > 1 else "model.safetensors"


def _index(shards: Mapping[str, list[_Tensor]]) -> dict[str, Any]:
    """Content of the file that says which shard has which tensor."""
    place = {tensor.info.name: name for name, shard in shards.items() for tensor in shard}
    total = sum(tensor.info.size for shard in shards.values() for tensor in shard)
    return {"metadata": {"total_size": total}, "weight_map": place}


def _write_shards(
    files: list[epath.Path], shards: list[list[_Tensor]], leaves: Leaves
) -> list[epath.Path]:
    count = sum(len(shard) for shard in shards)
    tensors = track(itertools.chain.from_iterable(shards), "writing weights", count)
    if not is_first():
        deque(_pieces(tensors, leaves), maxlen=0)
        return files
    files[0].parent.mkdir(parents=True, exist_ok=True)
    for path, shard in zip(files, shards, strict=True):
        pieces = _pieces(itertools.islice(tensors, len(shard)), leaves)
        try:
            with path.open("wb") as file:
                write_safetensors(file.write, [tensor.info for tensor in shard], pieces, _METADATA)
        except OSError as error:
            raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
    deque(tensors, maxlen=0)  # ends the progress line
    return files


def _pieces(tensors: Iterable[_Tensor], leaves: Leaves) -> Iterator[np.ndarray]:
    """Tensors as the file holds them, a few rows at a time."""
    for tensor in tensors:
        # A call of its own, so that nothing holds this tensor when the next one is fetched.
        yield from _rows(tensor, leaves)


def _rows(tensor: _Tensor, leaves: Leaves) -> Iterator[np.ndarray]:
    """Parts joined, in torch's orientation."""
    parts = [on_host(leaves[row.entry.path], tensor.place) for row in tensor.parts]
    if tensor.parts[0].entry.by_turns:
        for rows in row_blocks(parts[0].shape, parts[0].itemsize):
            yield np.stack([part[rows] for part in parts], axis=-1)
        return
    pieces = [
        (piece.file, part[..., piece.own : piece.own + piece.size])
        for row, part in zip(tensor.parts, parts, strict=True)
        for piece in row.pieces
    ]
    ordered = [outputs for _, outputs in sorted(pieces, key=lambda piece: piece[0])]
    if tensor.parts[0].entry.of_experts:
        ordered = [outputs[expert] for expert in range(len(parts[0])) for outputs in ordered]
    if tensor.parts[0].entry.transpose:
        for outputs in ordered:
            yield from (outputs.T[rows] for rows in row_blocks(outputs.T.shape, outputs.itemsize))
        return
    if parts[0].ndim == 1:
        yield np.concatenate(ordered)
        return
    for rows in row_blocks(parts[0].shape, parts[0].itemsize):
        yield np.concatenate([outputs[rows] for outputs in ordered], axis=-1)


def _bytes(size: int | str) -> int:
    if isinstance(size, int):
        return size
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB)", size.strip().upper())
    if match is None:
        raise ValueError(
            f"max_shard_size {size!r} is no size; valid: a number of bytes, or '500MB', '5GB'"
        )
    return int(float(match[1]) * SIZE_UNITS[match[2]])
