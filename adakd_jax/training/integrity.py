"""Whether a checkpoint on disk is still what was saved: the sizes and checksums of its files.

Orbax and TensorStore check their own indexes, not the arrays: a bit that flips in these trains on.
"""

import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from adakd_jax.data.progress import track
from adakd_jax.user_path import is_remote

CHECKSUMS = "checksums.json"
# Orbax writes these when all else is written, and again; a checkpoint can be read without them.
_WRITTEN_LAST = (CHECKSUMS, "_CHECKPOINT_METADATA", "commit_success.txt")
_NEEDED = "default/_METADATA"
_STEP = re.compile(r"step_(\d+)")
_BLOCK_BYTES = 4 << 20
_SMALL_BYTES = 64 << 10

Tell = Callable[[str], None]


class DamagedCheckpointError(ValueError):
    """A checkpoint is not what was saved; the message says which file, and what would be valid."""


def write_checksums(folder: epath.Path) -> None:
    """List every file of a checkpoint that is written, but not yet under its name.

    Args:
        folder: of the checkpoint. On a bucket only sizes are listed: it keeps checksums itself, and
            to read everything back would be a download.

    Scope: one process of a run calls this, when all of them have written their files.
    """
    on_bucket = _on_bucket(folder)
    files = {
        name: [file.stat().length, None if on_bucket else _checksum(file)]
        for name, file in sorted(_files(folder))
        if name not in _WRITTEN_LAST
    }
    content = json.dumps({"checksum": _checksum_of_list(files), "files": files})
    (folder / CHECKSUMS).write_text(content)


def damage(folder: epath.Path, *, thorough: bool = True) -> str | None:
    """What is wrong with a checkpoint, or None if nothing is found.

    Without a list of checksums (of an older version, or itself damaged) only the presence of what
    Orbax needs first is checked.

    Args:
        folder: of the checkpoint.
        thorough: read all files; otherwise compare all sizes and read the small files only.
    """
    listed = _listed(folder)
    if listed is None:
        return None if (folder / _NEEDED).exists() else f"{_NEEDED} is missing"
    total = len(listed)
    for name, (size, checksum) in track(listed.items(), f"checking {folder.name}", total):
        file = folder / name
        if not file.exists():
            return f"{name} is missing"
        length = file.stat().length
        if length != size:
            return f"{name} has {length:,} bytes, it should have {size:,}"
        read = checksum is not None and (thorough or size <= _SMALL_BYTES)
        if read and _checksum(file) != checksum:
            return f"the content of {name} has changed since it was saved"
    return None


def has_checksums(folder: epath.Path) -> bool:
    """Whether a checkpoint can be compared with what was saved."""
    return _listed(folder) is not None


def set_damaged_aside(checkpoints: epath.Path, tell: Tell) -> None:
    """Rename damaged checkpoints, so that the newest sound one is the newest.

    All files of the newest are read; of one older than the newest sound one the small files, which
    is enough for it to be listed.

    Args:
        checkpoints: the folder of all checkpoints; need not exist.
        tell: is told, in a line each, what was found.

    Raises:
        DamagedCheckpointError: no checkpoint is sound; nothing is renamed.

    Scope: one process of a run calls this, before any opens the folder.
    """
    sound, found = None, {}
    for folder in complete_checkpoints(checkpoints):
        problem = damage(folder, thorough=sound is None)
        if problem is None:
            sound = sound or folder
        else:
            found[folder] = problem
    if found and sound is None:
        listed = "\n".join(f"  {folder.name}: {problem}" for folder, problem in found.items())
        raise DamagedCheckpointError(
            f"{checkpoints} has no sound checkpoint to go on from:\n{listed}\n"
            "valid: a copy of one of these as it was saved; or another --run_dir, or this folder "
            "moved away, to start anew"
        )
    for folder, problem in found.items():
        aside = _free_name(folder)
        folder.rename(aside)
        tell(f"checkpoint {folder.name} is damaged: {problem}; set aside as {aside.name}")
    if sound is not None and not has_checksums(sound):
        tell(f"checkpoint {sound.name} has no readable {CHECKSUMS}; used without checking it")


def complete_checkpoints(checkpoints: epath.Path) -> list[epath.Path]:
    """The folders of all checkpoints that were written to their end, newest first."""
    if not checkpoints.exists():
        return []
    matches = [(_STEP.fullmatch(folder.name), folder) for folder in checkpoints.iterdir()]
    steps = sorted(((int(match[1]), folder) for match, folder in matches if match), reverse=True)
    # On a bucket, where nothing can be renamed at once, this file says that all is written.
    return [f for _, f in steps if not _on_bucket(f) or (f / "commit_success.txt").exists()]


def _free_name(folder: epath.Path) -> epath.Path:
    aside, count = folder.with_name(f"damaged_{folder.name}"), 1
    while aside.exists():
        count += 1
        aside = folder.with_name(f"damaged_{folder.name}_{count}")
    return aside


def _listed(folder: epath.Path) -> dict[str, Any] | None:
    """Size and checksum of each file by name; None if that list is absent or itself damaged."""
    try:
        content = json.loads((folder / CHECKSUMS).read_text())
        sound = content["checksum"] == _checksum_of_list(content["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content["files"] if sound else None


def _files(folder: epath.Path, prefix: str = "") -> Iterator[tuple[str, epath.Path]]:
    """All files below a folder, by their name relative to it."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files(path, f"{prefix}{path.name}/")
        else:
            yield prefix + path.name, path


def _checksum(file: epath.Path) -> int:
    value = 0
    with file.open("rb") as content:
        while block := content.read(_BLOCK_BYTES):
            value = zlib.crc32(block, value)
    return value


def _checksum_of_list(files: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(files, sort_keys=True).encode())


def _on_bucket(folder: epath.Path) -> bool:
    return is_remote(folder)
