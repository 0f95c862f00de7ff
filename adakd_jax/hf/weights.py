"""Parameters from named tensors, through the key table, slice by slice straight to their shards."""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jax.typing import DTypeLike

from adakd_jax.data.progress import track
from adakd_jax.hf.fused_experts import experts_apart
from adakd_jax.hf.keymap import (
    OPTIONAL_PREFIXES,
    Parameter,
    head_name,
    is_harmless,
    is_left_out,
    parameters,
    places_of,
    tensor_names,
    unread_names,
)
from adakd_jax.hf.shards import Index, ShardBuffers, row_blocks
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.quantized import Quantization, is_kernel, quantize
from adakd_jax.sharding import split_where_possible

Read = Callable[[str, Index], np.ndarray]
Place = Callable[[str], Sharding]


class WeightsError(ValueError):
    """A checkpoint does not fit its configuration; the message names every tensor at fault."""


def params_from_tensors(
    config: DecoderConfig,
    shapes: Mapping[str, tuple[int, ...]],
    read: Read,
    *,
    dtype: DTypeLike = jnp.float32,
    place: Place | None = None,
    quantization: Quantization | None = None,
    source: str = "the checkpoint",
) -> dict[str, Any]:
    """Fill the decoder's parameters from a checkpoint's tensors, one tensor at a time.

    Of a tensor only what this process holds is read, in blocks of a few MB, into the shards of its
    own devices. Of a kernel that is quantised, that is all inputs of the outputs it holds, for each
    output has its own scales.

    Args:
        config: the decoder; its family's key table says which tensors there must be.
        shapes: shape of every tensor of the checkpoint by Hugging Face name. Names may lack the
            base model's prefix.
        read: returns a part of a tensor by its name in `shapes`; is called for one tensor after
            another.
        dtype: of the parameters.
        place: where a parameter, given its dotted path, shall live; by default the default device.
        quantization: of the kernels, which are then `qwix.QArray`; None: none.
        source: what error messages call the checkpoint.

    Returns:
        parameters as nested dicts.

    Raises:
        WeightsError: names all missing, extra and mis-shaped tensors together.
    """
    rows = parameters(config)
    shapes, read = experts_apart(config, shapes, read)
    names = _resolve(config, rows, shapes)
    _check(config, rows, names, shapes, read, source)
    params: dict[str, Any] = {}
    for row in track(rows, "loading weights", len(rows)):
        path = row.entry.path
        sharding = None if place is None else place(path)
        tensors = [_writer(row, read, names[name]) for name in tensor_names(row)]
        *parents, last = path.split(".")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        if quantization is not None and is_kernel(path):
            node[last] = _quantized(row, tensors, dtype, sharding, quantization)
        else:
            node[last] = _plain(row, tensors, dtype, sharding)
    return params


Write = Callable[[np.ndarray, Index], None]


def _plain(
    row: Parameter, tensors: list[Write], dtype: DTypeLike, sharding: Sharding | None
) -> jax.Array:
    buffers = ShardBuffers(row.shape, dtype, sharding)
    for place, write in zip(places_of(row), tensors, strict=True):
        buffers.fill(place, write)
    return buffers.finish()


def _quantized(
    row: Parameter,
    tensors: list[Write],
    dtype: DTypeLike,
    sharding: Sharding | None,
    how: Quantization,
) -> Any:
    """A kernel, rounded a few outputs at a time: it is never in memory whole in more bits."""

    def reserve(leaf: jax.ShapeDtypeStruct) -> ShardBuffers:
        split = None if sharding is None else split_where_possible(sharding, leaf.shape)
        return ShardBuffers(leaf.shape, leaf.dtype, split)

    shape = jax.ShapeDtypeStruct(row.shape, dtype)
    buffers = jax.tree.map(reserve, jax.eval_shape(lambda kernel: quantize(kernel, how), shape))
    *_, inputs, outputs = row.shape
    blocks = list(row_blocks((outputs, inputs), np.dtype(dtype).itemsize))
    for tensor, write in zip(places_of(row), tensors, strict=True):
        # Of a tensor of all experts, one after the other.
        within = itertools.product(*map(range, row.shape[len(tensor) : -2]))
        for inside, block in itertools.product(within, blocks):
            place = (*tensor, *inside)
            if not buffers.qvalue.holds(place, block):
                continue
            kernel = np.empty((inputs, block.stop - block.start), dtype)
            alone = tuple(slice(number, number + 1) for number in inside)
            write(kernel[(None,) * len(inside)], (*alone, slice(0, inputs), block))
            parts = jax.tree.map(np.asarray, quantize(kernel, how))
            jax.tree.map(functools.partial(_fill_outputs, place, block), buffers, parts)
    return jax.tree.map(ShardBuffers.finish, buffers)


def _fill_outputs(
    place: tuple[int, ...], block: slice, buffers: ShardBuffers, values: np.ndarray
) -> None:
    """Copy some outputs of one layer, or one expert of it, [.., block], to where they belong."""

    def write(buffer: np.ndarray, index: Index) -> None:
        rows, outputs = index
        begin, end = max(outputs.start, block.start), min(outputs.stop, block.stop)
        if begin < end:
            part = values[rows, begin - block.start : end - block.start]
            buffer[:, begin - outputs.start : end - outputs.start] = part

    buffers.fill(place, write)


def _writer(row: Parameter, read: Read, name: str) -> Write:
    """What fills a buffer with a part of our parameter (of a layer of it), from a tensor."""

    def write(buffer: np.ndarray, index: Index) -> None:
        wanted = index[-1]
        for piece in row.pieces:
            begin = max(wanted.start, piece.own)
            end = min(wanted.stop, piece.own + piece.size)
            if begin < end:
                part = buffer[..., begin - wanted.start : end - wanted.start]
                first = piece.file + (begin - piece.own) * piece.step
                last = piece.file + (end - 1 - piece.own) * piece.step
                where = (*index[:-1], slice(first, last + 1))
                # In the file's orientation.
                if row.entry.transpose:
                    part = part.transpose(row.turned(tuple(range(part.ndim))))
                    where = row.turned(where)
                _read_rows(read, name, part, where, piece.step)

    return write


def _read_rows(read: Read, name: str, target: np.ndarray, where: Index, step: int) -> None:
    """A few MB at a time; of the last dimension every `step`."""
    for rows in row_blocks(target.shape, target.itemsize):
        begin = where[0].start + rows.start
        found = read(name, (slice(begin, begin + rows.stop - rows.start), *where[1:]))
        target[rows] = found if step == 1 else found[..., ::step]


def _resolve(
    config: DecoderConfig, rows: list[Parameter], shapes: Mapping[str, Any]
) -> dict[str, str]:
    """Table name → name in the checkpoint, for those that are there.

    Of two tied tensors a file may hold either one, as `safetensors.torch.save_model` writes them.
    """
    names, head = {}, head_name(config)
    for name in (name for row in rows for name in tensor_names(row)):
        bare = [name.removeprefix(prefix) for prefix in OPTIONAL_PREFIXES]
        found = [candidate for candidate in (name, *bare) if candidate in shapes]
        if found:
            names[name] = found[0]
    if config.tied and head in shapes:
        names.setdefault(rows[0].entry.name, head)
    return names


def _check(
    config: DecoderConfig,
    rows: list[Parameter],
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    read: Read,
    source: str,
) -> None:
    wanted = {name: row.tensor_shape for row in rows for name in tensor_names(row)}
    extra = set(shapes) - set(names.values())
    extra = {name for name in extra if not is_harmless(name) and not is_left_out(name)}
    unread = unread_names(config)
    bare = {name.removeprefix(prefix) for name in unread for prefix in OPTIONAL_PREFIXES}
    extra -= unread | bare
    problems = []
    head = head_name(config)
    if config.tied and head in extra:
        extra.remove(head)
        embedding = names[rows[0].entry.name]
        if not _equal(read, head, embedding, shapes):
            problems.append(
                f"{head} differs from {embedding}, but the configuration ties them (valid: "
                f"tie_word_embeddings false in config.json, or a file without {head})"
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


def _equal(read: Read, name: str, other: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether two tensors hold the same."""
    shape = shapes[name]
    if shape != shapes[other]:
        return False
    for rows in row_blocks(shape, np.dtype(np.float32).itemsize):
        index = (rows, slice(0, shape[1]))
        if not np.array_equal(read(name, index), read(other, index)):
            return False
    return True
