"""Writing a cache, file by file, so that an interrupted start goes on where it was stopped."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from adakd_jax.console import Console
from adakd_jax.data.examples import Examples
from adakd_jax.data.progress import track
from adakd_jax.teacher_cache.agreement import Teach, agreement, answers, check_same_teacher
from adakd_jax.teacher_cache.manifest import (
    INDEX,
    MANIFEST,
    Manifest,
    TeacherCacheError,
    differences,
    digests_of,
    missing_shards,
    read_index,
    read_manifest,
)
from adakd_jax.teacher_cache.records import from_bytes, to_bytes

# One record a group, or reading one would read its neighbours.
_OPTIONS = "group_size:1,zstd:9"


def write_cache(
    folder: Path, examples: Examples, manifest: Manifest, teach: Teach, console: Console
) -> None:
    """Writes what is missing of a cache.

    Args:
      folder: of the cache; made if absent.
      examples: what the teacher is shown.
      manifest: describes the whole cache.
      teach: asks the teacher.
      console: where it is said what is there already.

    Raises:
      TeacherCacheError: the folder holds a cache of something else.
    """
    digests = digests_of(examples)
    _begin(folder, manifest, digests)
    missing = missing_shards(folder, manifest)
    there = manifest.shards - len(missing)
    if there and missing:
        console.print(f"cache    {there} of {manifest.shards} files are there already")
        _check_first(folder, manifest, examples, teach)
    blocks = [_block(manifest, shard) for shard in missing]
    done = _write_shards(folder, examples, manifest, teach, missing)
    for _ in track(done, "asking the teacher", sum(map(len, blocks))):
        pass


def _check_first(folder: Path, manifest: Manifest, examples: Examples, teach: Teach) -> None:
    """Asks for one stored example again; a cache is of one teacher."""
    shard = min(set(range(manifest.shards)) - set(missing_shards(folder, manifest)))
    file = ArrayRecordDataSource([str(folder / manifest.shard_name(shard))])
    stored = from_bytes(manifest.form, file[0])[1]
    now = answers(teach, [examples[_block(manifest, shard)[0]]])
    check_same_teacher(agreement([stored], now), folder)


def _begin(folder: Path, manifest: Manifest, digests: np.ndarray) -> None:
    """Writes index and description, or checks that those that are there are the same."""
    if (folder / MANIFEST).is_file():
        different = differences(read_manifest(folder), manifest)
        if different or not np.array_equal(read_index(folder), digests):
            listed = "".join(f"\n  {line}" for line in different) or "\n  tokens of the examples"
            raise TeacherCacheError(
                f"teacher.cache: {folder} holds a cache of something else (old -> new):{listed}\n"
                "valid: the old settings, to go on with it; or another --teacher.cache"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / INDEX, digests)
    manifest.write(folder)


def _block(manifest: Manifest, shard: int) -> range:
    """The examples of a file."""
    first = shard * manifest.shard_examples
    return range(first, min(first + manifest.shard_examples, manifest.examples))


def _write_shards(
    folder: Path, examples: Examples, manifest: Manifest, teach: Teach, missing: Sequence[int]
) -> Iterator[int]:
    """Yields the number of each example when the teacher has answered."""
    for shard in missing:
        numbers = _block(manifest, shard)
        block = [examples[number] for number in numbers]
        records = [b""] * len(block)
        for place, taught in teach(block):
            records[place] = to_bytes(manifest.form, block[place], taught)
            yield numbers[place]
        _write_records(folder / manifest.shard_name(shard), records)


def _write_records(file: Path, records: Sequence[bytes]) -> None:
    """A file is there when it is complete."""
    partial = file.with_name(f"{file.name}.partial")
    writer = ArrayRecordWriter(str(partial), _OPTIONS)
    for record in records:
        writer.write(record)
    writer.close()
    partial.replace(file)
