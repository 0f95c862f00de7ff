"""JSON however people arrange rows in it: one object a line, a list, or one object after another.

Nothing is passed over: what follows a list is read too, and a key that stands twice in an object
makes the row malformed, for a parser keeps one of the two without a word.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

from adakd_jax.data.raw_row import REST_LOST, RawRow, not_utf8

Opened = Callable[[], AbstractContextManager[BinaryIO]]
_UTF8_MARK = b"\xef\xbb\xbf"
_OPENS_LIST = re.compile(rb"\[\s*([\[{\]]|$)")
_NOT_JSON = (ValueError, RecursionError)  # too many digits are a ValueError, too many brackets not


def read_json(opened: Opened, name: str) -> Iterator[RawRow]:
    """Reads the rows of a JSON file, whatever its name says of their arrangement.

    A file that begins with a whole object has one a line: there, a damaged line costs itself only.
    Otherwise it is a stream of values over any number of lines; a list gives its elements.

    Args:
      opened: opens the file at its beginning.
      name: how origins call the file.
    """
    with opened() as file:
        first = next((line for line in map(_bare, file) if line), b"")
    if _OPENS_LIST.match(first) or _opens_object_over_lines(first, opened):
        with opened() as file:
            data = file.read().removeprefix(_UTF8_MARK)
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            yield not_utf8(data, error, name)
            return
        yield from _Stream(text, name).rows()
        return
    with opened() as file:
        for number, line in enumerate(file, start=1):
            if text := _bare(line):
                yield from _line(text, f"{name}:{number}")


def _bare(text: bytes) -> bytes:
    return text.removeprefix(_UTF8_MARK).strip()


def _opens_object_over_lines(first: bytes, opened: Opened) -> bool:
    """Whether an object begins in the first line and ends in a later one; else it is damaged."""
    if first == b"{" or not first.startswith(b"{"):
        return first == b"{"
    decoder = _Decoder()
    try:
        decoder.read(first.decode(), 0)
        return False
    except _NOT_JSON:
        pass
    with opened() as file:
        text = _bare(file.read()).decode(errors="replace")
    try:
        decoder.read(text, 0)
        return True
    except _NOT_JSON:
        return False


class _Decoder(json.JSONDecoder):
    """Notices keys that stand twice."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self._twice: str | None = None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            self._twice = next(key for key in keys if keys.count(key) > 1)
        return content

    def read(self, text: str, place: int) -> tuple[Any, int, str | None]:
        """The value that begins at `place`, where it ends, and why its row is malformed if it is.

        Raises:
          ValueError, RecursionError: no JSON begins there.
        """
        self._twice = None
        content, end = self.raw_decode(text, place)
        if self._twice is None:
            return content, end, None
        return None, end, f"key {self._twice!r} stands twice in one object"


def _line(line: bytes, origin: str) -> Iterator[RawRow]:
    """The row that a line holds, or the rows of a list that it holds."""
    try:
        text = line.decode()
        content, end, wrong = _Decoder().read(text, 0)
        if end < len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except UnicodeDecodeError as error:
        yield RawRow(origin, None, f"not valid UTF-8 at byte {error.start}")
    except _NOT_JSON as error:
        yield RawRow(origin, None, _reason(error))
    else:
        listed = isinstance(content, list) and all(isinstance(each, dict) for each in content)
        yield from (RawRow(origin, each, wrong) for each in (content if listed else [content]))


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} at column {error.colno}"
    return f"not valid JSON: {error}"


class _Stream:
    """Values one after another in a text, each known by the line it begins in."""

    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name
        self._place, self._line, self._counted = 0, 1, 0
        self._rest_lost = False
        self._decoder = _Decoder()

    def rows(self) -> Iterator[RawRow]:
        """All of them; brackets and commas of a list stand between values."""
        in_list = False
        while self._skip_blank():
            sign = self._text[self._place]
            if (in_list and sign in ",]") or (sign == "[" and not in_list):
                in_list = sign != "]"
                self._place += 1
                continue
            try:
                yield self._value()
            except _NOT_JSON as error:
                yield self._broken(error)
        if in_list and not self._rest_lost:
            reason = "not valid JSON: the list has no end; is the end of the file missing?"
            yield RawRow(self._origin(len(self._text)), None, reason)

    def _value(self) -> RawRow:
        origin = self._origin(self._place)
        content, self._place, error = self._decoder.read(self._text, self._place)
        return RawRow(origin, content, error)

    def _broken(self, error: Exception) -> RawRow:
        """Says what is wrong, and goes on where another object begins a line, if one does."""
        at = error.pos if isinstance(error, json.JSONDecodeError) else self._place
        origin = self._origin(at)
        resume = self._text.find("\n{", max(at, self._place))
        self._rest_lost = resume < 0
        self._place = len(self._text) if self._rest_lost else resume
        return RawRow(origin, None, _reason(error) + REST_LOST * self._rest_lost)

    def _skip_blank(self) -> bool:
        """Goes to what comes next; False at the end."""
        while self._text[self._place : self._place + 1].isspace():
            self._place += 1
        return self._place < len(self._text)

    def _origin(self, place: int) -> str:
        self._line += self._text.count("\n", self._counted, place)
        self._counted = max(place, self._counted)
        return f"{self._name}:{self._line}"
