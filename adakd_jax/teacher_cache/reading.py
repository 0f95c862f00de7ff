"""Reading a cache: for each training example of a run, what the teacher thought of its tokens."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from jaxtyping import Int, Int64

from adakd_jax.axes import CachedTeacher
from adakd_jax.config.provenance import config_differences
from adakd_jax.data.examples import Examples
from adakd_jax.teacher_cache.manifest import (
    COMMAND,
    Manifest,
    TeacherCacheError,
    digests_of,
    local_cache,
    missing_shards,
    read_index,
    read_manifest,
)
from adakd_jax.teacher_cache.records import RecordError, from_bytes, response_places


class TeacherCache:
    """A complete cache; `manifest` describes it, `path` is its folder."""

    def __init__(self, path: str | Path):
        """Opens a cache.

        Raises:
          TeacherCacheError: there is none, or it is not complete.
        """
        self.path = local_cache(path)
        self.manifest: Manifest = read_manifest(path)
        missing = missing_shards(self.path, self.manifest)
        if missing:
            raise TeacherCacheError(
                f"teacher.cache: {self.path} lacks {len(missing)} of {self.manifest.shards} files, "
                f"the first {self.manifest.shard_name(missing[0])}; start {COMMAND} again, which "
                "goes on where it was stopped"
            )

    def __len__(self) -> int:
        """Number of examples."""
        return self.manifest.examples

    def __getitem__(self, index: int) -> CachedTeacher:
        """NumPy arrays [n, k], [n, k] and [n] of the n response tokens of one example, from 0."""
        return self.read(index)[1]

    def read(self, index: int) -> tuple[bytes, CachedTeacher]:
        """The digest of an example, and what the teacher thought of it."""
        return from_bytes(self.manifest.form, self._records[index])

    def places_of(
        self, examples: Examples, settings: Mapping[str, Any] | None = None
    ) -> Int64[np.ndarray, " N"]:
        """Where in the cache each of these examples is, by their tokens and targets.

        Args:
          examples: of a run; they may be fewer, or in another order.
          settings: what they come from (`data_settings`), to say what differs.

        Raises:
          TeacherCacheError: some are not in the cache.
        """
        held = {bytes(digest): place for place, digest in enumerate(self.index)}
        wanted = [bytes(digest) for digest in digests_of(examples)]
        absent = [number for number, digest in enumerate(wanted) if digest not in held]
        if absent:
            changed = config_differences(self.manifest.data, settings or self.manifest.data)
            why = "".join(f"\n  data: {line}" for line in changed) or (
                " (another tokenizer, or the file has changed)"
            )
            raise TeacherCacheError(
                f"teacher.cache: {self.path} does not hold {len(absent):,} of the "
                f"{len(wanted):,} training examples, the first of row "
                f"{examples.rows[absent[0]]} (from 0): it was made of other rows, or of other "
                f"tokens{why}\nvalid: a cache made "
                f"with {COMMAND} and the settings of this run; or teacher.cache null"
            )
        return np.array([held[digest] for digest in wanted], np.int64)

    @cached_property
    def index(self) -> np.ndarray:
        """The digests of all examples, uint8 [N, 16]."""
        return read_index(self.path)

    @cached_property
    def _records(self) -> ArrayRecordDataSource:
        names = map(self.manifest.shard_name, range(self.manifest.shards))
        return ArrayRecordDataSource([str(self.path / name) for name in names])


class Taught:
    """A run's examples in a cache: what the teacher thought of each, and of packed rows of them."""

    def __init__(
        self, cache: TeacherCache, examples: Examples, settings: Mapping[str, Any] | None = None
    ):
        """Finds all examples; see `TeacherCache.places_of`."""
        self.k = cache.manifest.form.k
        self._cache, self._examples = cache, examples
        self._places = cache.places_of(examples, settings)

    def __getitem__(self, number: int) -> CachedTeacher:
        """NumPy arrays [n, k], [n, k] and [n].

        Raises:
          RecordError: the file holds another example than its index says.
        """
        place = int(self._places[number])
        digest, taught = self._cache.read(place)
        if digest != bytes(self._cache.index[place]):
            raise RecordError(
                f"{self._cache.path} holds another example where its index names number {number} "
                f"of the training data: its files are of different caches; make it again with "
                f"{COMMAND}"
            )
        return taught

    def rows(self, rows: Sequence[Int[np.ndarray, " _"]], row_length: int) -> CachedTeacher:
        """The same beside packed rows, as `assemble_rows` makes them: NumPy arrays [rows, T, …],
        zeros where there is no label.
        """
        shape = (len(rows), row_length)
        ids = np.zeros((*shape, self.k), np.int32)
        log_probs = np.zeros((*shape, self.k), np.float32)
        tail = np.zeros(shape, np.float32)
        for row, documents in enumerate(rows):
            start = 0
            for number in documents.tolist():
                example = self._examples[number]
                where = start + response_places(example)
                ids[row, where], log_probs[row, where], tail[row, where] = self[number]
                start += len(example.tokens)
        return CachedTeacher(ids, log_probs, tail)
