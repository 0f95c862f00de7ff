"""Files of JSON lines that grow by whole records and survive an interruption."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def append_records(file: Path, records: Iterable[Any]) -> None:
    """Adds records, one a line, and returns when the disk has them."""
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    with file.open("ab", buffering=0) as opened:
        opened.write("".join(f"{line}\n" for line in lines).encode())
        os.fsync(opened.fileno())


def whole_lines(file: Path) -> list[bytes]:
    """All lines of a file but a last one that an interruption tore; none if there is no file."""
    return _whole(file)[0].splitlines() if file.exists() else []


def remove_torn_line(file: Path) -> None:
    """Shortens a file to its whole lines."""
    whole, length = _whole(file)
    if len(whole) < length:
        os.truncate(file, len(whole))


def _whole(file: Path) -> tuple[bytes, int]:
    content = file.read_bytes()
    return content[: content.rfind(b"\n") + 1], len(content)
