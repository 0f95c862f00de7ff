"""Two files of answers to the same requests, put together pair by pair."""

from collections import defaultdict
from typing import NamedTuple

from etils import epath

from adakd_jax.config.data import Columns, FileSource
from adakd_jax.data.files import source_files
from adakd_jax.data.readers import read_rows
from adakd_jax.data.rows import Row, RowError, normalize_row
from adakd_jax.data.shapes import columns_read
from adakd_jax.eval.asked import asked_key, asked_turns


class Pair(NamedTuple):
    """A request, and what the two models answered; an answer may be empty."""

    request: str
    answer_a: str
    answer_b: str


class Pairs(NamedTuple):
    """All pairs in the order of the first file, and how many answers had no partner."""

    pairs: list[Pair]
    unmatched: int


def read_pairs(file_a: str, file_b: str, columns: Columns | None = None) -> Pairs:
    """Matches the answers of two files by what was asked; a repeated request in order.

    Args:
      file_a: a file of rows as `adakd_jax.generate` and `adakd_jax.evaluate` write it:
        instruction and input with the answer as output, or messages that end with the answer.
      file_b: of the other model.
      columns: the names under which rows keep their parts.

    Raises:
      ValueError: a malformed row, or no request in common.
      FileNotFoundError: a file that is not there.
    """
    columns = columns or Columns()
    rows_a, rows_b = _rows(file_a, columns), _rows(file_b, columns)
    partners: dict[str, list[Row]] = defaultdict(list)
    for row in reversed(rows_b):
        partners[asked_key(row)].append(row)
    pairs = [
        Pair(_request(row), _answer(row), _answer(partners[asked_key(row)].pop()))
        for row in rows_a
        if partners[asked_key(row)]
    ]
    if not pairs:
        raise ValueError(f"{file_a} and {file_b} have no request in common")
    return Pairs(pairs, len(rows_a) + len(rows_b) - 2 * len(pairs))


def _rows(name: str, columns: Columns) -> list[Row]:
    rows = []
    for file in source_files(FileSource(path=name)):
        for raw in read_rows(epath.Path(file), str(file), columns_read(columns)):
            if raw.error is not None:
                raise ValueError(f"{raw.origin}: {raw.error}")
            try:
                row = normalize_row(raw.content, columns, origin=raw.origin, require_output=False)
            except RowError as error:
                hint = f"; if it has another name: --columns.{error.part}" if error.part else ""
                raise ValueError(f"{raw.origin}: {error}{hint}") from None
            if not (row["instruction"] or row["messages"]):
                raise ValueError(f"{raw.origin}: plain text has no request and no answer")
            rows.append(row)
    return rows


def _request(row: Row) -> str:
    if row["messages"]:
        turns = asked_turns(row["messages"])
        return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
    return "\n\n".join(part for part in (row["instruction"], row["input"]) if part)


def _answer(row: Row) -> str:
    if row["messages"]:
        last = row["messages"][-1]
        return last["content"].strip() if last["role"] == "assistant" else ""
    return row["outputs"][0].strip() if row["outputs"] else ""
