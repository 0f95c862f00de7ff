"""From a file or hub source to the list of files it names."""

import glob
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from etils import epath
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from adakd_jax.config.data import FileSource, HubSource
from adakd_jax.data.readers import KINDS, SUFFIXES, suffix
from adakd_jax.user_path import is_remote, user_path

_VALID_SUFFIXES = f"valid files: {KINDS}"
_ROWS_FIRST = (".jsonl", ".json", ".parquet")
# Files that describe a hub data set and are none of its rows.
_HUB_METADATA = ("dataset_infos.json", "dataset_dict.json", "dataset_info.json", "state.json")
_HELD_OUT = re.compile(r"(^|[^a-z])(test|valid|validation|dev|eval)([^a-z]|$)")


class DataNotFoundError(FileNotFoundError):
    """Rows cannot be reached; the message says what was tried and what would be valid."""


def source_files(source: FileSource | HubSource) -> list[epath.Path]:
    """Lists a source's files, downloading those of a hub data set.

    A path is first what it says, and only then a pattern: `exp [v1]/rows.jsonl` is that file if it
    is there, and so is the folder of `exp [v1]/*.jsonl`.

    Args:
      source: where the rows are.

    Returns:
      Existing files, sorted within each pattern.

    Raises:
      DataNotFoundError: nothing matches, or it cannot be reached.
      ValueError: a file of another kind, or a hub pattern that mixes kinds or splits.
    """
    if isinstance(source, HubSource):
        return _hub_files(source)
    patterns = (source.path,) if isinstance(source.path, str) else source.path
    files = [file for pattern in patterns for file in _matching(pattern)]
    wrong = [str(file) for file in files if suffix(file.name) is None]
    if wrong:
        raise ValueError(f"cannot read {wrong[0]!r}: {_VALID_SUFFIXES}")
    return files


def _matching(pattern: str) -> list[epath.Path]:
    path = user_path(pattern)
    try:
        found = (sorted(filter(_is_file, _expand(reading))) for reading in _readings(str(path)))
        files = next(filter(None, found), [])
    except ImportError as error:
        raise DataNotFoundError(f"{pattern!r} needs a file system package: {error}") from error
    if not files:
        hint = "it is a folder; add '/*.jsonl'" if path.is_dir() else _VALID_SUFFIXES
        raise DataNotFoundError(f"no file at {pattern!r} (looked in {Path.cwd()}); {hint}")
    return files


def _readings(pattern: str) -> list[str]:
    """What a path can mean, as patterns: first all of it literally, last none of it."""
    parts = pattern.split("/")
    readings = ["/".join([*map(glob.escape, parts[:n]), *parts[n:]]) for n in range(len(parts) + 1)]
    return list(dict.fromkeys(reversed(readings)))


def _is_file(path: epath.Path) -> bool:
    return path.is_file()


def _expand(pattern: str) -> Iterator[epath.Path]:
    if not is_remote(pattern):
        return map(epath.Path, glob.iglob(pattern, recursive=True))
    if glob.escape(_unescaped(pattern)) == pattern:
        return iter([epath.Path(_unescaped(pattern))])
    parts = epath.Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return epath.Path(*parts[:first]).glob("/".join(parts[first:]))


def _unescaped(pattern: str) -> str:
    """The opposite of `glob.escape`."""
    return re.sub(r"\[([?*[])\]", r"\1", pattern)


def _hub_files(source: HubSource) -> list[epath.Path]:
    pattern = source.files
    # Where no kind is named, tables count only if there are no rows in another form.
    kinds = [("",)] if suffix(pattern) is not None else [_ROWS_FIRST, SUFFIXES]
    tries = [[reading + end for end in ends] for ends in kinds for reading in _readings(pattern)]
    folder = _download(source, [each for patterns in tries for each in patterns])
    present = {
        str(file.relative_to(folder)): epath.Path(file)
        for file in sorted(folder.rglob("*"))
        if file.name not in _HUB_METADATA
    }
    found = (
        [file for name, file in present.items() if any(fnmatch(name, one) for one in patterns)]
        for patterns in tries
    )
    files = next(filter(None, found), [])
    if not files:
        raise DataNotFoundError(
            f"hub data set {source.name!r} has no file that matches {pattern!r}; {_VALID_SUFFIXES}"
        )
    names = [str(Path(file).relative_to(folder)) for file in files]
    held_out = [_HELD_OUT.search(name.lower()) is not None for name in names]
    if len({suffix(file.name) for file in files}) > 1 or len(set(held_out)) > 1:
        raise ValueError(
            f"files: {pattern!r} matches files of several kinds or splits in hub data set "
            f"{source.name!r}: {', '.join(names[:10])}; "
            f"choose with a narrower pattern, e.g. {names[0]!r}"
        )
    return files


def _download(source: HubSource, patterns: list[str]) -> Path:
    revision = "main" if source.revision is None else source.revision
    try:
        return Path(
            snapshot_download(
                source.name,
                repo_type="dataset",
                revision=source.revision,
                allow_patterns=patterns,
                ignore_patterns=list(_HUB_METADATA),
            )
        )
    except GatedRepoError as error:
        raise DataNotFoundError(
            f"hub data set {source.name!r} is gated: accept its terms on its hub page, "
            "then run `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise DataNotFoundError(
            f"hub data set {source.name!r} has no revision {revision!r}"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DataNotFoundError(
            f"no data set {source.name!r} on the hub (a private one needs `hf auth login`); "
            "valid: 'owner/name'; a local file is a source of kind 'file'"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise DataNotFoundError(
            f"hub data set {source.name!r} at {revision!r} is not in the local cache, "
            f"and the hub cannot be reached ({type(error).__name__})"
        ) from error
