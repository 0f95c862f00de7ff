"""Files of a model that are not what their names say: one error, which names the file."""

import json
from pathlib import Path
from typing import Any

from etils import epath

_POINTER = b"version https://git-lfs"
_PAGES = (b"<!doctype html", b"<html")
_HEAD = 512
_AGAIN = "download or copy it again"


class ModelFileError(ValueError):
    """A file of a model cannot be used: the message names it and says why and what to do."""


def unusable(path: epath.PathLike, why: str, remedy: str | None = None) -> ModelFileError:
    """The error about a file that cannot be used.

    What the file holds in place of a model's file, such as a Git LFS pointer, is said before `why`,
    which is what a reader found wrong.

    Args:
        path: the file.
        why: continues a sentence that begins with the file's name.
        remedy: what to do about it; None: to get the file again.
    """
    file = epath.Path(path)
    return ModelFileError(f"{file} " + (_other_content(file) or f"{why}; {remedy or _AGAIN}"))


def _other_content(file: epath.Path) -> str | None:
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD)
    except OSError:  # the reader's own words are better
        return None
    if not head:
        return f"is empty; {_AGAIN}"
    if head.startswith(_POINTER):
        return "is a Git LFS pointer, not the file it stands for; fetch that with: git lfs pull"
    if head.lstrip().lower().startswith(_PAGES):
        return f"is a web page, perhaps that of an error or a login; {_AGAIN}"
    return None


def read_json(path: epath.PathLike, remedy: str | None = None) -> dict[str, Any]:
    """The object that a JSON file of a model or a run holds; the file may be remote.

    Args:
        path: the file.
        remedy: what to do about a broken one; None: to get it again.

    Raises:
        ModelFileError: it is not JSON, or no object.
        OSError: it is not there, or cannot be read.
    """
    file = epath.Path(path)
    try:
        content = json.loads(file.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise unusable(file, f"is not readable JSON: {error}", remedy) from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise unusable(file, f"holds a {kind}, not an object {{…}}", remedy)
    return content


def read_json_if_there(path: epath.PathLike) -> dict[str, Any] | None:
    """The same, or None where there is no such file."""
    return read_json(path) if epath.Path(path).is_file() else None


def listing(folder: Path) -> str:
    """The names in a folder, for a message; links to nothing are marked."""
    names = (
        file.name if file.exists() else f"{file.name} (a link to nothing)"
        for file in folder.iterdir()
    )
    return ", ".join(sorted(names)) or "none"
