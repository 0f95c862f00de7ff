"""Rows of Markdown and CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def head(cells: Sequence[str]) -> Iterator[str]:
    """The first two lines of a Markdown table; all columns but the first stand to the right."""
    yield row(cells)
    yield "|---|" + "--:|" * (len(cells) - 1)


def row(cells: Sequence[str]) -> str:
    """A line of a Markdown table; text in it is no markup of the table."""
    plain = [" ".join(cell.replace("|", "\\|").splitlines()) for cell in cells]
    return "| " + " | ".join(plain) + " |"


def as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV, with a column for every key that any of them has."""
    listed = list(rows)
    columns = list(dict.fromkeys(name for row in listed for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(listed)
    return text.getvalue()
