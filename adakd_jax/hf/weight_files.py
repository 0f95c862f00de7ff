"""Which files of a model's folder hold its weights, by the rules of `transformers`."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adakd_jax.hf.model_files import ModelFileError, listing, read_json, unusable
from adakd_jax.hf.write import SAFETENSORS_INDEX

WHOLE_FILE = "model.safetensors"
# The key of a config.json that names another file or index.
NAMED_WEIGHTS = "transformers_weights"


def safetensors_files(folder: Path, hf_config: Mapping[str, Any] | None = None) -> list[Path]:
    """The weight files of a folder, as `transformers` chooses them: what the configuration names,
    else `model.safetensors`, else the files of the index; else the only safetensors file.

    Warns where both a whole file and an index are there, for one of them may be a leftover.

    Args:
        folder: of a model.
        hf_config: its config.json.

    Raises:
        ModelFileError: there are none, or an index cannot be read or names files that are absent.
    """
    named = (hf_config or {}).get(NAMED_WEIGHTS)
    if named is not None:
        return _named(folder, named)
    whole, index = folder / WHOLE_FILE, folder / SAFETENSORS_INDEX
    if whole.is_file():
        if index.is_file():
            warnings.warn(
                f"{folder} has {WHOLE_FILE} and {SAFETENSORS_INDEX}: {WHOLE_FILE} is read, as in "
                "transformers; remove the one that is old",
                stacklevel=2,
            )
        return [whole]
    if index.is_file():
        return _files_of(index)
    found = sorted(file for file in folder.glob("*.safetensors") if file.is_file())
    if len(found) == 1:
        return found
    raise ModelFileError(_nothing_to_read(folder))


def _named(folder: Path, name: Any) -> list[Path]:
    file = folder / str(name)
    if not isinstance(name, str) or not file.is_file() or file.parent != folder:
        raise ModelFileError(
            f"{folder / 'config.json'}: {NAMED_WEIGHTS} is {name!r}, which is no file of "
            f"{folder}; files there: {listing(folder)}"
        )
    return _files_of(file) if name.endswith(".index.json") else [file]


def _files_of(index: Path) -> list[Path]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise unusable(index, "has no weight_map, which says what file each tensor is in")
    if not all(isinstance(name, str) for name in places.values()):
        raise unusable(index, "has a weight_map with other values than names of files")
    names = sorted(set(places.values()))
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent:
        raise ModelFileError(
            f"{index} names files that are not there: {', '.join(absent)}; get them, or the whole "
            f"model as {WHOLE_FILE}"
        )
    return [index.parent / name for name in names]


def _nothing_to_read(folder: Path) -> str:
    there = f"files there: {listing(folder)}"
    if list(folder.glob("*.bin")) or list(folder.glob("*.pt")):
        return (
            f"{folder} has pickled weights only, which are never read; {there}; valid: "
            "safetensors (save the model with transformers once) or a .gguf file"
        )
    return f"{folder} has no {WHOLE_FILE} and no {SAFETENSORS_INDEX}; {there}"
