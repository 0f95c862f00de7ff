"""From a path as a user writes it to one that can be opened: the one place that knows `~`."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from etils import epath


def user_path(path: epath.PathLike) -> epath.Path:
    """Opens a setting that names a file or folder.

    Args:
      path: local, where `~` and `~name` stand for a home folder; or remote, as in
        gs://bucket/folder, which stays as it is.
    """
    name = os.fspath(path)
    return epath.Path(name if is_remote(name) else os.path.expanduser(name))


def local_path(path: epath.PathLike, setting: str) -> Path:
    """The same for a setting that needs a path of this machine.

    Args:
      path: a local path.
      setting: its name, for the error.

    Raises:
      ValueError: the path is remote.
    """
    if is_remote(path):
        raise ValueError(f"{setting}: {os.fspath(path)!r} is remote; valid: a path on this machine")
    return Path(user_path(path))


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path has a scheme, as gs:// is one."""
    return "://" in os.fspath(path)


def _glob(folder: epath.Path, pattern: str) -> Iterator[epath.Path]:
    return _GLOB(epath.Path(glob.escape(os.fspath(folder))), pattern)


# etils takes the name of the folder itself for a pattern, too. In a folder called 'run [a]' orbax
# would then not find its own files, and leave checkpoints that cannot be read. So every glob of
# this process takes folders as they are called.
_PATH = type(epath.Path())
_GLOB = _PATH.glob
setattr(_PATH, "glob", _glob)  # noqa: B010 - it is another library's
