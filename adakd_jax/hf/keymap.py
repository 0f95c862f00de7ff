"""Between our parameters and Hugging Face tensors: a family's table of keys, read both ways."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from adakd_jax.models.config import PROJECTIONS, SOURCES, DecoderConfig
from adakd_jax.models.decoder import abstract_decoder
from adakd_jax.models.families import FAMILIES
from adakd_jax.models.family import Entry
from adakd_jax.models.layer_kinds import layers_with, mixers_of


class Piece(NamedTuple):
    """`size` outputs of a parameter, from `own` on, which stand in the tensor from `file` on, every
    `step` of its outputs.
    """

    own: int
    file: int
    size: int
    step: int = 1


class Parameter(NamedTuple):
    """A row of the table that this model uses: the entry and our shape and dtype.

    `outputs` are those of the whole tensor, of which this parameter's are the `pieces`, in order.
    `layers` are the numbers of those that its rows belong to; none where it is not stacked.
    """

    entry: Entry
    shape: tuple[int, ...]
    dtype: Any
    outputs: int
    pieces: tuple[Piece, ...]
    layers: tuple[int, ...]

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape of the (whole) tensor in the file."""
        shape = (*self.shape[self.entry.stacks : -1], self.outputs)
        return self.turned(shape) if self.entry.transpose else shape

    def turned(self, each: tuple[Any, ...]) -> tuple[Any, ...]:
        """What there is of each dimension of ours, in the order of a transposed tensor's."""
        return (each[0], *each[:0:-1]) if self.entry.of_experts else each[::-1]


# A file saved from the bare model, without its head, lacks this part of every name.
OPTIONAL_PREFIXES = ("model.", "transformer.", "gpt_neox.")
# Buffers that older files carry: constants, not weights.
_HARMLESS = (r"rotary_emb\.inv_freq$", r"\.(attn|attention)\.(bias|masked_bias)$")


# Heads that guess the tokens after the next, beside a model that is whole without them.
_LEFT_OUT = r"^mtp\."


def is_harmless(name: str) -> bool:
    """Whether a tensor is a buffer that is not read."""
    return any(re.search(known, name) for known in _HARMLESS)


def is_left_out(name: str) -> bool:
    """Whether a tensor is of a part that is not read, which is to be said."""
    return re.search(_LEFT_OUT, name) is not None


def unread_names(config: DecoderConfig) -> set[str]:
    """Names of tensors that files may have of layers that read the keys and values of others, and
    that transformers does not read either.
    """
    paths = [
        f"layers.{source}.{name}"
        for source in SOURCES.values()
        for name in ("key.", "value.", "key_norm.")
    ]
    readers = [layer for layer, mixer in enumerate(mixers_of(config)) if mixer in SOURCES]
    return {
        entry.name.format(layer=layer)
        for layer in readers
        for entry in FAMILIES[config.family].keys
        if entry.path.startswith(tuple(paths))
    }


def head_name(config: DecoderConfig) -> str:
    """Name of the output embedding's tensor, which a tied model may have too."""
    keys = FAMILIES[config.family].keys
    return next(entry.name for entry in keys if entry.path == "head.embedding")


def parameters(config: DecoderConfig) -> list[Parameter]:
    """The rows of the family's table that this model has, with our shapes; every parameter is in
    exactly one row.

    Raises:
        ValueError: the table lacks a parameter of the model.
    """
    _, abstract = abstract_decoder(config)
    leaves = {
        ".".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
    }
    # Layers of several kinds may call different tensors alike.
    tensors: dict[tuple[str, str], list[Entry]] = {}
    for entry in FAMILIES[config.family].keys:
        if entry.path in leaves:
            tensors.setdefault((entry.name, entry.block), []).append(entry)
    rows = [
        Parameter(
            entry,
            leaves[entry.path].shape,
            leaves[entry.path].dtype,
            outputs,
            pieces,
            layers_with(config, entry.block) if entry.stacked else (),
        )
        for entries in tensors.values()
        for entry, outputs, pieces in _placed(entries, leaves, _heads(config, entries[0].block))
    ]
    lacking = sorted(set(leaves) - {row.entry.path for row in rows})
    if lacking:
        raise ValueError(f"the key table of {config.family} has no row for {', '.join(lacking)}")
    return rows


def _heads(config: DecoderConfig, block: str) -> int:
    """By how many heads the tensors of a block are put together, where they are by head."""
    if block == "delta" and config.delta_net is not None:
        return config.delta_net.key_heads
    return config.num_heads


def _placed(
    entries: Sequence[Entry], leaves: Mapping[str, Any], heads: int
) -> Iterator[tuple[Entry, int, tuple[Piece, ...]]]:
    """The entries of one tensor, its outputs, and which of these are each entry's."""
    entries = sorted(entries, key=lambda entry: entry.part)
    blocks = heads if entries[0].by_head else 1
    sizes = [leaves[entry.path].shape[-1] // blocks for entry in entries]
    block = sum(sizes)
    before = 0
    for entry, size in zip(entries, sizes, strict=True):
        if entry.by_turns:
            yield entry, block, (Piece(0, entry.part, size, len(entries)),)
            continue
        pieces = tuple(Piece(n * size, n * block + before, size) for n in range(blocks))
        yield entry, blocks * block, pieces
        before += size


def tensors_of(row: Parameter) -> dict[str, tuple[int, ...]]:
    """Names of the row's tensors, and where in our parameter each of them is: (), (row,) where it
    is stacked over layers, or (row, expert).
    """
    return {name_at(row, place): place for place in places_of(row)}


def places_of(row: Parameter) -> Iterator[tuple[int, ...]]:
    """Where in our parameter each of the row's tensors is, in order."""
    return itertools.product(*map(range, row.shape[: row.entry.stacks]))


def name_at(row: Parameter, place: tuple[int, ...]) -> str:
    """The name of one of a row's tensors."""
    numbers = (*layer_at(row, place), *place[1:])
    return row.entry.name.format(**dict(zip(("layer", "expert"), numbers, strict=False)))


def layer_at(row: Parameter, place: tuple[int, ...]) -> tuple[int, ...]:
    """The number of the layer that one of a row's tensors is of, () for none."""
    return (row.layers[place[0]],) if place else ()


def tensor_names(row: Parameter) -> list[str]:
    """Names of the row's tensors."""
    return list(tensors_of(row))


class Projection(NamedTuple):
    """A matrix product of a layer as Hugging Face knows it, with `{layer}` in its name.

    `paths` are ours, such as `attn.query`: several, in the order of its outputs, where it is fused.
    `size` is [in, out] of the whole, `pieces` which of its outputs are each path's; `transpose`:
    the file has it as [out, in]. `layers` are those that have it.
    """

    name: str
    paths: tuple[str, ...]
    size: tuple[int, int]
    transpose: bool
    pieces: tuple[tuple[Piece, ...], ...]
    layers: tuple[int, ...]

    @property
    def module(self) -> str:
        """Its name inside a layer, such as `self_attn.q_proj`."""
        return self.name.partition("{layer}.")[2]

    def is_called(self, name: str) -> bool:
        """Whether `name`, such as `q_proj`, means this projection among others."""
        return f".{self.module}".endswith(f".{name}")


def projections(config: DecoderConfig) -> list[Projection]:
    """The matrix products of the layers of this model, in the order of the key table; not those of
    experts.
    """
    found: dict[tuple[str, str], Projection] = {}
    for row in parameters(dataclasses.replace(config, lora=None)):
        path, _, kind = row.entry.path.removeprefix("layers.").rpartition(".")
        if row.entry.stacked and path in PROJECTIONS and kind == "kernel":
            name = row.entry.name.removesuffix(".weight")
            key = name, row.entry.block
            before = found.get(key, Projection(name, (), (0, 0), False, (), ()))
            found[key] = Projection(
                name,
                (*before.paths, path),
                (row.shape[1], row.outputs),
                row.entry.transpose,
                (*before.pieces, row.pieces),
                row.layers,
            )
    return list(found.values())
