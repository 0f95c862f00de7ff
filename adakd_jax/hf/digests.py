"""The files of models by name, size and checksum, by which changed ones are known."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from adakd_jax.hf.locate import MODEL_FILES, ModelNotFoundError, locate
from adakd_jax.hf.model_files import read_json_if_there
from adakd_jax.hf.peft import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from adakd_jax.hf.weight_files import safetensors_files

_BLOCK, _BLOCKS = 64 << 10, 256
# Weights mean something else under another one of these.
_DESCRIPTIONS = ("config.json", "generation_config.json")

Digests = dict[str, str]


def sampled_checksum(file: Path, blocks: int = _BLOCKS) -> str:
    """A checksum that costs the same however large a file is: of all of a small one, else of blocks
    of 64 KiB evenly from its beginning to its end.

    Training, merging an adapter and converting change nearly all numbers, so that few blocks tell.
    """
    size, hashed = file.stat().st_size, hashlib.blake2b(digest_size=8)
    places = range(0, size, _BLOCK)
    if len(places) > blocks:
        places = np.linspace(0, size - _BLOCK, blocks).astype(np.int64).tolist()
    with file.open("rb") as content:
        for place in places:
            content.seek(place)
            hashed.update(content.read(_BLOCK))
    return hashed.hexdigest()


def digests_of_files(files: Iterable[Path], blocks: int = _BLOCKS) -> Digests:
    """Size and sampled checksum of each file, by its name."""
    return {
        file.name: f"{file.stat().st_size:,} bytes, checksum {sampled_checksum(file, blocks)}"
        for file in files
    }


def model_digests(path: str, revision: str | None = None, fallback: str | None = None) -> Digests:
    """Of all files that decide what a model is: its weights and their description.

    Args:
        path: anything that `locate` finds.
        revision: hub branch, tag or commit.
        fallback: what is read where `path` cannot be reached.

    Raises:
        ModelNotFoundError: the model cannot be reached.
        ValueError: it has no weights that can be read.
    """
    try:
        found = locate(path, revision, files=MODEL_FILES)
    except ModelNotFoundError:
        if fallback is None:
            raise
        found = locate(fallback, files=MODEL_FILES)
    if found.suffix == ".gguf":
        # Only who has a GGUF file needs that library.
        from adakd_jax.hf.gguf_file import files_of

        return digests_of_files(files_of(found))
    hf_config = read_json_if_there(found / "config.json")
    descriptions = [found / name for name in _DESCRIPTIONS if (found / name).is_file()]
    return digests_of_files([*safetensors_files(found, hf_config), *descriptions])


def adapter_digests(path: str) -> Digests:
    """Of the files of a PEFT adapter.

    Raises:
        ModelNotFoundError: it cannot be reached.
    """
    names = ADAPTER_CONFIG, ADAPTER_WEIGHTS
    folder = locate(path, files=names)
    return digests_of_files(folder / name for name in names if (folder / name).is_file())
