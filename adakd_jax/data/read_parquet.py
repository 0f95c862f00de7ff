"""Parquet, one row group at a time, so that a broken page costs its row group only."""

from collections.abc import Iterator

import pyarrow
import pyarrow.parquet
from etils import epath

from adakd_jax.data.raw_row import RawRow

_BATCH = 1024


def read_parquet(path: epath.Path, name: str, columns: tuple[str, ...]) -> Iterator[RawRow]:
    """Reads a file's rows.

    Args:
      path: local or remote.
      name: how origins call the file; rows are counted from 1.
      columns: the only columns to read, if the file has any of them; else all are read.
    """
    with path.open("rb") as opened:
        try:
            # Pages that were written with a checksum are compared with it.
            file = pyarrow.parquet.ParquetFile(opened, page_checksum_verification=True)
            present = file.schema_arrow.names
            groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        except (pyarrow.ArrowException, OSError) as error:
            _raise_if_unreachable(error)
            yield RawRow(f"{name}:1", None, f"not a Parquet file: {_first_line(error)}")
            return
        if len(set(present)) < len(present):
            twice = next(column for column in present if present.count(column) > 1)
            yield RawRow(f"{name}:1", None, f"two columns are called {twice!r}")
            return
        wanted = [column for column in present if column in columns] or present
        first = 1
        for group, rows in enumerate(groups):
            yield from _read_group(file, group, range(first, first + rows), name, wanted)
            first += rows


def _read_group(
    file: pyarrow.parquet.ParquetFile, group: int, rows: range, name: str, columns: list[str]
) -> Iterator[RawRow]:
    number = rows.start
    try:
        for batch in file.iter_batches(_BATCH, row_groups=[group], columns=columns):
            for content in batch.to_pylist():
                yield RawRow(f"{name}:{number}", content)
                number += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        _raise_if_unreachable(error)
        reason = (
            f"row group {group + 1} of {file.num_row_groups} is broken, its rows {number} to "
            f"{rows.stop - 1} are not read: {_first_line(error)}"
        )
        yield RawRow(f"{name}:{number}", None, reason, lost=rows.stop - number)


def _raise_if_unreachable(error: Exception) -> None:
    """Arrow calls a broken page an OSError; one of the file system is about no row."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
