"""A loaded teacher that is asked what it thinks of examples."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from adakd_jax.axes import (
    IGNORE,
    CachedTeacher,
    Head,
    TokenBatch,
    each_with_its_rows,
    replicated,
    row_axes,
)
from adakd_jax.data.assemble import assemble_rows
from adakd_jax.data.fill import packed_rows
from adakd_jax.data.tokenize import Example
from adakd_jax.distill import keep_top
from adakd_jax.distill.chunks import buffers_like, chunk_size_for, chunks_of, put, take
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.models import logits
from adakd_jax.sharding import entered, row_shards
from adakd_jax.teacher_cache.records import response_places


class LoadedTeacher:
    """Shows examples to a teacher, packed into rows as in training, and keeps k tokens of each."""

    def __init__(
        self,
        teacher: Pretrained,
        k: int,
        vocabulary: int,
        *,
        row_length: int,
        batch_rows: int,
        mesh: Mesh | None = None,
    ):
        """Takes the model.

        Args:
          teacher: the model, on the mesh if there is one.
          k: tokens to keep.
          vocabulary: tokens to choose from, the first of the teacher's.
          row_length: tokens of a packed row.
          batch_rows: rows of a forward pass.
          mesh: of the devices; its `data` and `fsdp` axes share the rows.
        """
        shards = row_shards(mesh)
        self._teacher, self._mesh = teacher, mesh
        self._k, self._vocabulary = k, vocabulary
        self._shape = (-(-batch_rows // shards) * shards, row_length)

    def __call__(self, examples: Sequence[Example]) -> Iterator[tuple[int, CachedTeacher]]:
        """Yields the place of each example and NumPy arrays [n, k], [n, k] and [n], by batches."""
        batch_rows, row_length = self._shape
        lengths = np.array([len(example.tokens) for example in examples])
        rows = packed_rows(lengths, row_length)
        for first in range(0, len(rows), batch_rows):
            held = rows[first : first + batch_rows]
            held = held + [np.zeros(0, np.int64)] * (batch_rows - len(held))
            batch = assemble_rows(examples, held, row_length)
            found = self._ask(batch)
            for row, documents in enumerate(held):
                start = row * row_length
                for place in documents.tolist():
                    example = examples[place]
                    where = start + response_places(example)
                    yield place, CachedTeacher(*(array[where] for array in found))
                    start += len(example.tokens)

    def _ask(self, batch: TokenBatch) -> CachedTeacher:
        """NumPy arrays [B·T, …]."""
        with entered(self._mesh):
            found = _distributions(
                self._teacher.graphdef, self._k, self._vocabulary, self._teacher.params, batch
            )
        return CachedTeacher(*map(np.asarray, jax.device_get(found)))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _distributions(
    graphdef: nnx.GraphDef, k: int, vocabulary: int, params: Any, batch: TokenBatch
) -> CachedTeacher:
    """What to keep of all tokens of a batch, [B·T, …]."""
    teacher = nnx.merge(graphdef, params)
    hidden = teacher(batch.tokens, batch.positions, batch.segments)
    head = teacher.head()._replace(size=vocabulary)
    axes = row_axes()

    def of_rows(weight: Array, hidden: Array, labels: Array) -> CachedTeacher:
        """One device's part."""
        flat = hidden.reshape(labels.size, -1)
        return kept_tokens(flat, head._replace(weight=weight), jnp.ravel(labels), k, axes)

    rows: Any = P(axes)
    whole: Any = P()
    run = each_with_its_rows(of_rows, axes, (whole, rows, rows), rows)
    return jax.tree.map(replicated, run(head.weight.astype(hidden.dtype), hidden, batch.labels))


def kept_tokens(
    hidden: Float[Array, "n D"],
    head: Head,
    labels: Int[Array, " n"],
    k: int,
    axes: tuple[str, ...] = (),
) -> CachedTeacher:
    """What a cache keeps at each response token, in chunks, as the loss; zeros elsewhere.

    Args:
      hidden: last hidden states of the teacher.
      head: its output embedding.
      labels: next tokens; −100 where there is none.
      k: tokens to keep.
      axes: mesh axes whose devices have a part of the tokens each.
    """
    size = chunk_size_for(head.size, labels.size)
    chunks = chunks_of(labels != IGNORE, size, axes)
    known = jnp.where(labels == IGNORE, 0, labels)

    def look(index: Array) -> tuple[Array, CachedTeacher]:
        places = chunks.places(index, size)
        return places, keep_top(logits(take(hidden, places), head), take(known, places), k)

    def visit(index: Array, buffers: CachedTeacher) -> CachedTeacher:
        return put(buffers, *look(index))

    rows = jax.eval_shape(look, jnp.int32(0))[1]
    return jax.lax.fori_loop(0, chunks.count, visit, buffers_like(rows, labels.size))
