"""Files to raw rows: JSON lines, a JSON list, Parquet. Every row carries its file and line."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
from etils import epath

SUFFIXES = (".jsonl", ".json", ".parquet")
_UTF8_MARK = b"\xef\xbb\xbf"


class RawRow(NamedTuple):
    """A parsed row, or why it could not be parsed; `origin` is 'file:line', from line 1."""

    origin: str
    content: Any
    error: str | None = None


def read_rows(path: epath.Path, name: str, columns: tuple[str, ...]) -> Iterator[RawRow]:
    """Reads a file row by row; what cannot be parsed is yielded as an error, not raised.

    Args:
      path: a .jsonl, .json (a list of objects, or JSON lines) or .parquet file, local or remote.
      name: how origins call the file.
      columns: the only columns that are wanted; others are not read from Parquet.

    Returns:
      Iterator over the file's rows in order.
    """
    if path.suffix == ".parquet":
        yield from _read_parquet(path, name, columns)
    elif path.suffix == ".json" and _starts_with_bracket(path):
        yield from _read_json_list(path, name)
    else:
        yield from _read_json_lines(path, name)


def _starts_with_bracket(path: epath.Path) -> bool:
    with path.open("rb") as file:
        for line in file:
            if text := line.removeprefix(_UTF8_MARK).strip():
                return text.startswith(b"[")
    return False


def _not_json(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} at column {error.colno}"
    return f"not valid JSON: {error}"  # a number of too many digits, or too many brackets


def _read_json_lines(path: epath.Path, name: str) -> Iterator[RawRow]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(_UTF8_MARK) if number == 1 else line
            if not line.strip():
                continue
            origin = f"{name}:{number}"
            try:
                yield RawRow(origin, json.loads(line.decode().strip()))
            except UnicodeDecodeError as error:
                yield RawRow(origin, None, f"not valid UTF-8 at byte {error.start}")
            except (ValueError, RecursionError) as error:
                yield RawRow(origin, None, _not_json(error))


def _read_json_list(path: epath.Path, name: str) -> Iterator[RawRow]:
    """Parses one element at a time, so that each is known by its line."""
    try:
        text = path.read_bytes().removeprefix(_UTF8_MARK).decode()
    except UnicodeDecodeError as error:
        yield RawRow(f"{name}:1", None, f"not valid UTF-8 at byte {error.start}")
        return
    decoder = json.JSONDecoder()
    place = _skip_blank(text, text.index("[") + 1)
    line, counted = 1, 0
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        try:
            content, place = decoder.raw_decode(text, place)
            after = _skip_blank(text, place)
            if text[after : after + 1] not in (",", "]"):
                raise json.JSONDecodeError("Expecting ',' or ']'", text, after)
        except (ValueError, RecursionError) as error:
            reason = f"{_not_json(error)}; the rest of the file is not read"
            place = error.lineno if isinstance(error, json.JSONDecodeError) else line
            yield RawRow(f"{name}:{place}", None, reason)
            return
        yield RawRow(f"{name}:{line}", content)
        place = _skip_blank(text, after + 1) if text[after] == "," else after


def _skip_blank(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _read_parquet(path: epath.Path, name: str, columns: tuple[str, ...]) -> Iterator[RawRow]:
    with path.open("rb") as opened:
        try:
            file = pyarrow.parquet.ParquetFile(opened)
        except pyarrow.ArrowInvalid as error:
            yield RawRow(f"{name}:1", None, f"not a Parquet file: {error}")
            return
        present = file.schema_arrow.names
        wanted = [column for column in present if column in columns] or present
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=wanted):
            for content in batch.to_pylist():
                number += 1
                yield RawRow(f"{name}:{number}", content)
