"""The folder of an export: it appears whole, and takes the place of nothing but an earlier one."""

import fnmatch
import glob
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etils import epath

from adakd_jax.hf.model_files import read_json
from adakd_jax.hf.peft import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from adakd_jax.hf.safetensors_file import read_metadata
from adakd_jax.processes import is_first, wait_for_all
from adakd_jax.user_path import is_remote, user_path

# Marks a config.json, or the weights of an adapter, as written here: only such a folder is ever
# replaced.
MARK = "adakd_jax_version"
EXPORTED_FILES = (
    "config.json",
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "README.md",
)
_PARTIAL = ".adakd_jax-partial-"
# Where a folder cannot be renamed, this stands in it for as long as it is not whole.
INCOMPLETE = "adakd_jax-export-is-incomplete"


def absolute(path: epath.PathLike) -> epath.Path:
    """A local path made absolute, its `~` expanded; a remote one, as in gs://bucket/folder, as it
    is (`epath` would put the working directory before it).
    """
    return user_path(path) if is_remote(path) else user_path(path).absolute()


@contextmanager
def new_folder(path: epath.PathLike) -> Iterator[epath.Path]:
    """A folder to write an export into; the first process of a run alone makes it.

    On a file system it is made beside its place and renamed when the block ends; an earlier export
    stays until then, and if the block fails. A bucket cannot rename a folder: there, an earlier
    export is removed first, and a file says that the folder is incomplete until it is not.

    Raises:
      FileExistsError: something other than an earlier export is in its place.
    """
    target = absolute(path)
    if not is_first():
        yield target
    else:
        refuse_to_overwrite(target)
        with _in_bucket(target) if is_remote(target) else _beside(Path(target)) as folder:
            yield folder
    wait_for_all("the export")


@contextmanager
def _beside(target: Path) -> Iterator[epath.Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}{_PARTIAL}"
    for abandoned in target.parent.glob(f"{glob.escape(prefix)}*"):  # by a process that was killed
        shutil.rmtree(abandoned)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as scratch:
        folder = Path(scratch) / "new"
        folder.mkdir()
        yield epath.Path(folder)
        _put_in_place(folder, target, Path(scratch) / "old")


@contextmanager
def _in_bucket(target: epath.Path) -> Iterator[epath.Path]:
    earlier = sorted(target.iterdir(), key=_config_first) if target.exists() else []
    target.mkdir(parents=True, exist_ok=True)
    mark = target / INCOMPLETE
    mark.write_text("An export was begun here and has not ended; the next one replaces it.\n")
    for file in earlier:
        if file.name != INCOMPLETE:
            file.unlink()
    yield target
    mark.unlink()


def _config_first(file: epath.Path) -> tuple[bool, str]:
    """Without its config.json, nobody takes a folder for a model."""
    return file.name != "config.json", file.name


def refuse_to_overwrite(path: epath.PathLike) -> None:
    """Checks, before any work, that a folder may be written or replaced.

    Raises:
      FileExistsError: it holds something other than an earlier export.
    """
    target = absolute(path)
    if not target.exists():
        return
    if not target.is_dir():
        raise FileExistsError(f"{target} is a file; give a folder to export to")
    names = sorted(file.name for file in target.iterdir())
    if not names:
        return
    if not _is_export(target) and INCOMPLETE not in names:
        raise FileExistsError(
            f"{target} is not empty and not an earlier export of adakd_jax; choose a new folder"
        )
    known = (*EXPORTED_FILES, INCOMPLETE)
    foreign = [name for name in names if not any(fnmatch.fnmatch(name, one) for one in known)]
    if foreign:
        raise FileExistsError(
            f"{target} is an earlier export, but replacing it would delete {', '.join(foreign)}; "
            "move them away or choose a new folder"
        )


def _is_export(folder: epath.Path) -> bool:
    config, adapter = folder / "config.json", folder / ADAPTER_WEIGHTS
    if config.is_file():
        return MARK in read_json(config)
    return adapter.is_file() and MARK in read_metadata(adapter)


def _put_in_place(folder: Path, target: Path, aside: Path) -> None:
    """Renames `folder` to `target`; if that fails, an earlier `target` is put back."""
    had_earlier = target.exists()
    if had_earlier:
        target.rename(aside)
    try:
        folder.rename(target)
    except OSError:
        if had_earlier:
            aside.rename(target)
        raise
