"""Files to raw rows, by the ends of their names: JSON, CSV, Parquet, and compressed text."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import pyarrow
from etils import epath

from adakd_jax.data.raw_row import REST_LOST, RawRow
from adakd_jax.data.read_csv import read_csv
from adakd_jax.data.read_json import read_json
from adakd_jax.data.read_parquet import read_parquet

_TEXT = (".jsonl", ".json", ".csv", ".tsv")
_COMPRESSED = (".gz", ".zst")
SUFFIXES = (*_TEXT, ".parquet", *(text + packed for text in _TEXT for packed in _COMPRESSED))
KINDS = "*.jsonl, *.json, *.csv, *.tsv (each also .gz or .zst), *.parquet"


def suffix(name: str) -> str | None:
    """The end of a file's name that says how it is read, one of `SUFFIXES`; None for no other."""
    return next((end for end in SUFFIXES if name.lower().endswith(end)), None)


def read_rows(path: epath.Path, name: str, columns: tuple[str, ...]) -> Iterator[RawRow]:
    """Reads a file row by row; what cannot be parsed is yielded as an error, not raised.

    Args:
      path: a file, local or remote, whose name ends with one of `SUFFIXES`.
      name: how origins call the file.
      columns: the only columns that are wanted; others are not read from Parquet.

    Returns:
      Iterator over the file's rows in order.
    """
    kind = suffix(path.name)
    if kind == ".parquet":
        yield from read_parquet(path, name, columns)
        return
    line = 0
    try:
        for row in _read_text(path, kind or "", name):
            line = int(row.origin.rpartition(":")[2])
            yield row
    except (OSError, EOFError, zlib.error) as error:
        # An error of the file system has a number; one of what is in the file has none.
        if getattr(error, "errno", None) is not None:
            raise
        reason = f"cannot be decompressed: {error}{REST_LOST}"
        yield RawRow(f"{name}:{line + 1}", None, reason)


def _read_text(path: epath.Path, kind: str, name: str) -> Iterator[RawRow]:
    if kind.startswith((".csv", ".tsv")):
        with _open(path, kind) as file:
            data = file.read()
        yield from read_csv(data, name, "\t" if kind.startswith(".tsv") else None)
    else:
        yield from read_json(lambda: _open(path, kind), name)


@contextmanager
def _open(path: epath.Path, kind: str) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        if kind.endswith(".gz"):
            with gzip.open(file) as unpacked:
                yield cast(BinaryIO, unpacked)
        elif kind.endswith(".zst"):
            with pyarrow.CompressedInputStream(pyarrow.PythonFile(file), "zstd") as unpacked:
                yield io.BufferedReader(unpacked)
        else:
            yield cast(BinaryIO, file)
