"""What a reader of files yields."""

from typing import Any, NamedTuple

REST_LOST = "; the rest of the file is not read"


class RawRow(NamedTuple):
    """A parsed row, or why it could not be parsed; `origin` is 'file:line', from line 1.

    `lost` is the number of rows that an error costs, as far as that is known.
    """

    origin: str
    content: Any
    error: str | None = None
    lost: int = 1


def not_utf8(data: bytes, error: UnicodeDecodeError, name: str) -> RawRow:
    """The error of a file that was decoded as a whole, with the line it stands in."""
    line = data.count(b"\n", 0, error.start) + 1
    return RawRow(f"{name}:{line}", None, f"not valid UTF-8 at byte {error.start}{REST_LOST}")
