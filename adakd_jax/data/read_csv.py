"""CSV and TSV: a line of column names, then a row a record."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from adakd_jax.data.raw_row import RawRow, not_utf8

_LARGEST_FIELD = 2**31 - 1  # Python's own limit is 128 KiB


def read_csv(data: bytes, name: str, delimiter: str | None = None) -> Iterator[RawRow]:
    """Reads the rows of a file whose first record names the columns.

    Args:
      data: the file, in UTF-8, with or without a byte order mark.
      name: how origins call the file.
      delimiter: None: whichever of comma, semicolon and tab gives the first record most columns.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield not_utf8(data, error, name)
        return
    csv.field_size_limit(_LARGEST_FIELD)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter or _delimiter(text), strict=True
    )
    header: list[str] | None = None
    for line, record in _records(reader):
        if isinstance(record, csv.Error):
            yield RawRow(f"{name}:{line}", None, f"not valid CSV: {record}")
        elif header is None:
            header = record
            if len(set(header)) < len(header):
                twice = next(column for column in header if header.count(column) > 1)
                yield RawRow(f"{name}:{line}", None, f"two columns are called {twice!r}")
                return
        elif len(record) != len(header):
            count = f"{len(record)} values, but the first line names {len(header)} columns"
            yield RawRow(f"{name}:{line}", None, count)
        else:
            yield RawRow(f"{name}:{line}", dict(zip(header, record, strict=True)))


def _records(reader: Any) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Each record that is not blank, or what is wrong with it, and the line it begins in."""
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, error
            continue
        if record:
            yield line, record


def _delimiter(text: str) -> str:
    def columns(delimiter: str) -> int:
        try:
            return len(next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), []))
        except csv.Error:
            return 0

    return max(",;\t", key=columns)
