"""Prepared data on disk: named by its content, and either complete or absent."""

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etils import epath

from adakd_jax.user_path import is_remote, user_path

_PARTIAL = ".partial-"
_ABANDONED_SECONDS = 7 * 24 * 3600
# Hashing this much takes about as long as looking its digest up is worth.
_MEMO_BYTES = 64 << 20
# A file written this recently may still change without changing its time stamp.
_SETTLED_SECONDS = 10
_BLOCK = 1 << 20


def content_key(**parts: Any) -> str:
    """Names content: equal parts give equal keys, on every machine and in every process.

    Args:
      **parts: JSON values.

    Returns:
      32 hexadecimal digits.
    """
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def local_folder(cache_dir: str | Path) -> Path:
    """Resolves the cache folder, which is local: each machine of a pod prepares its own.

    Raises:
      ValueError: a remote folder.
    """
    if is_remote(cache_dir):
        raise ValueError(
            f"data.cache_dir: {str(cache_dir)!r} is remote; prepared data is memory-mapped, "
            "so give a folder of this machine"
        )
    return Path(user_path(cache_dir))


def file_digest(path: epath.Path, cache_dir: Path) -> str:
    """SHA-256 of a file's content; for a large one, remembered by path, size and time."""
    stat = path.stat()
    settled = 0 < stat.mtime < time.time() - _SETTLED_SECONDS  # 0: the file system keeps no time
    if stat.length < _MEMO_BYTES or not settled:
        return _sha256(path)
    memo = cache_dir / "digests" / content_key(path=str(path), size=stat.length, time=stat.mtime)
    if not memo.exists():
        memo.parent.mkdir(parents=True, exist_ok=True)
        unfinished = memo.with_name(f"{memo.name}.{uuid.uuid4().hex}")
        unfinished.write_text(_sha256(path))
        unfinished.replace(memo)
    return memo.read_text()


def _sha256(path: epath.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def prepared_folder(cache_dir: Path, name: str, write: Callable[[Path], None]) -> Path:
    """Returns the folder `name`, calling `write` to fill it if it is not there yet.

    The folder is written under another name and renamed when complete: a killed process leaves
    nothing that is picked up, and of two processes that prepare the same content at once the first
    to end wins.

    Args:
      cache_dir: local folder of all prepared data.
      name: the folder's name, made from its content's key.
      write: fills the empty folder it is given.

    Returns:
      The complete folder.
    """
    target = cache_dir / name
    if target.is_dir():
        return target
    cache_dir.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(cache_dir)
    partial = cache_dir / f"{_PARTIAL}{name}-{uuid.uuid4().hex}"
    partial.mkdir()
    try:
        write(partial)
        _publish(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _publish(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was first, with the same content
            raise


def _remove_abandoned(cache_dir: Path) -> None:
    """Deletes what killed processes left a week ago or more."""
    for folder in cache_dir.glob(f"{_PARTIAL}*"):
        try:
            age = time.time() - folder.stat().st_mtime
        except FileNotFoundError:  # another process cleaned up or published it
            continue
        if age > _ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
