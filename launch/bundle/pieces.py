"""Files as one compressed archive in pieces below a size, with checksums.

The same files give the same pieces, whenever and wherever they are written: what has not changed
need not travel again.
"""

import gzip
import hashlib
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

CHECKSUMS = "SHA256SUMS"
BLOCK = 1 << 20


class PieceWriter:
    """A stream that is cut into files part.000, part.001, … of at most `size` bytes."""

    def __init__(self, folder: Path, size: int):
        self.checksums: dict[str, str] = {}
        self.written = 0
        self._folder, self._size = folder, size
        self._file: BinaryIO | None = None
        self._digest, self._room = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        """Appends."""
        rest = memoryview(data)
        while rest:
            if self._room == 0:
                self._next()
            taken, rest = rest[: self._room], rest[self._room :]
            assert self._file is not None
            self._file.write(taken)
            self._digest.update(taken)
            self._room -= len(taken)
        self.written += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Ends the last piece."""
        if self._file is not None:
            name = Path(self._file.name).name
            self._file.close()
            self.checksums[name] = self._digest.hexdigest()
            self._file = None

    def _next(self) -> None:
        self.close()
        path = self._folder / f"part.{len(self.checksums):03d}"
        self._file = path.open("wb")
        self._digest, self._room = hashlib.sha256(), self._size


def write_pieces(folder: Path, files: Iterable[tuple[str, Path]], size: int) -> dict[str, str]:
    """Write files to pieces in a folder, in place of those of before.

    Args:
        folder: where the pieces go.
        files: name in the archive, and file; in the order of the archive.
        size: bytes of a piece, at most.

    Returns:
        SHA-256 by name of piece, in order.
    """
    (folder / CHECKSUMS).unlink(missing_ok=True)  # a bundle without it is not complete
    for old in folder.glob("part.*"):
        old.unlink()
    pieces = PieceWriter(folder, size)
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=4, fileobj=pieces, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path in files:
            entry = archive.gettarinfo(str(path), name)
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
            entry.mode = 0o755 if os.access(path, os.X_OK) else 0o644
            with path.open("rb") as source:
                archive.addfile(entry, source)
    pieces.close()
    return pieces.checksums


def write_checksums(folder: Path, checksums: dict[str, str]) -> None:
    """Write the file that `sha256sum -c` and unpack.py read; it comes last of all."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in checksums.items())
    (folder / CHECKSUMS).write_text(lines)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
