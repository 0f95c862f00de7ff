"""What a cache says about itself: whose distributions of which examples it holds, and how."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adakd_jax.config import Columns, RunConfig
from adakd_jax.config.chat import ChatConfig
from adakd_jax.config.provenance import config_differences
from adakd_jax.data.cache import local_folder
from adakd_jax.data.examples import Examples
from adakd_jax.data.progress import track
from adakd_jax.hf.model_files import read_json
from adakd_jax.teacher_cache.records import DIGEST_BYTES, Form, example_digest
from adakd_jax.user_path import is_remote

FORMAT = 1  # changes whenever older records would be misread
MANIFEST, INDEX = "manifest.json", "index.npy"
COMMAND = "python -m adakd_jax.cache_teacher"
# Settings that decide the tokens of the examples.
_DATA = (
    "train",
    "validation",
    "validation_fraction",
    "template",
    "chat",
    "columns",
    "max_length",
    "max_prompt_length",
    "max_rows",
)


class TeacherCacheError(ValueError):
    """A cache that is not there, not complete, or of something else; says what would do."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The description of a cache, `manifest.json`.

    Attributes:
      teacher: as its settings name it.
      licence: the teacher's licence id, if its files say.
      source: 'weights', or the address that was asked.
      form: of the records.
      examples: N, how many there are.
      response_tokens: of all examples.
      shard_examples: examples of each file; the last may hold less.
      data: the settings that the examples come from, and the seed of the held-out share.
      tokenizer: digest of the tokenizer that made the tokens.
      weights: digest of the teacher's files; None where a server was asked, and in old caches.
    """

    teacher: str
    licence: str | None
    source: str
    form: Form
    examples: int
    response_tokens: int
    shard_examples: int
    data: Mapping[str, Any]
    tokenizer: str
    weights: str | None = None

    @property
    def shards(self) -> int:
        """Number of files."""
        return -(-self.examples // self.shard_examples)

    def shard_name(self, index: int) -> str:
        """The file of shard `index`, from 0."""
        return f"part-{index:05d}-of-{self.shards:05d}.array_record"

    def summary(self) -> str:
        """One line."""
        return (
            f"{self.teacher}, cached: {self.form.k} of {self.form.vocabulary:,} tokens and the "
            f"mass of the others ({self.form.dtype}) at {self.response_tokens:,} response tokens "
            f"of {self.examples:,} examples"
        )

    def write(self, folder: Path) -> None:
        """Write it beside the records."""
        stored = {"format": FORMAT, **dataclasses.asdict(self)}
        (folder / MANIFEST).write_text(json.dumps(stored, indent=2, ensure_ascii=False) + "\n")


def data_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that the training examples of a run come from."""
    data = config.data.model_dump(mode="json")
    return {name: data[name] for name in _DATA} | {"seed": config.seed}


def read_manifest(path: str | Path) -> Manifest:
    """Reads the description of a cache.

    Raises:
      TeacherCacheError: there is none, or one of another version.
    """
    folder = local_cache(path)
    file = folder / MANIFEST
    if not file.is_file():
        raise TeacherCacheError(
            f"teacher.cache: {folder} holds no teacher cache (no {MANIFEST}); make it with "
            f"{COMMAND} and the same settings, or set teacher.cache null"
        )
    stored = read_json(file, f"make it again with {COMMAND}")
    version = stored.pop("format", None)
    if version != FORMAT:
        raise TeacherCacheError(
            f"teacher.cache: {folder} has format {version}, this version reads {FORMAT}; make it "
            f"again with {COMMAND}"
        )
    try:
        stored["data"] = _with_defaults(stored["data"])
        return Manifest(**{**stored, "form": Form(**stored["form"])})
    except (KeyError, TypeError, ValueError) as error:
        raise TeacherCacheError(
            f"teacher.cache: {file} does not describe a cache ({error}); make it again with "
            f"{COMMAND}"
        ) from error


def read_index(folder: Path) -> np.ndarray:
    """The digests of all examples of a cache, uint8 [N, 16].

    Raises:
      TeacherCacheError: they cannot be read.
    """
    try:
        return np.load(folder / INDEX)
    except (OSError, ValueError, EOFError) as error:
        raise TeacherCacheError(
            f"teacher.cache: {folder / INDEX} cannot be read ({error}); make it again with "
            f"{COMMAND}"
        ) from error


def _with_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """Settings that came after a cache was written have their defaults."""
    if "columns" not in data:
        return data
    columns = Columns.model_validate(data["columns"])
    chat = ChatConfig.model_validate(data.get("chat", {}))
    return data | {"columns": columns.model_dump(mode="json"), "chat": chat.model_dump(mode="json")}


def date_of(path: str | Path) -> str | None:
    """The date in the prompts of a cache that was begun before; None: there is none."""
    if not (local_cache(path) / MANIFEST).is_file():
        return None
    return read_manifest(path).data.get("chat", {}).get("date")


def missing_shards(folder: Path, manifest: Manifest) -> list[int]:
    """The files that are not there yet."""
    return [
        index
        for index in range(manifest.shards)
        if not (folder / manifest.shard_name(index)).is_file()
    ]


def digests_of(examples: Examples) -> np.ndarray:
    """The digests of all examples, uint8 [N, 16]."""
    found = b"".join(
        example_digest(example) for example in track(examples, "naming examples", len(examples))
    )
    return np.frombuffer(found, np.uint8).reshape(-1, DIGEST_BYTES)


def differences(old: Manifest, new: Manifest) -> list[str]:
    """'key: old -> new' for everything that two caches differ in, as far as they say."""
    if old.weights is None:
        old = dataclasses.replace(old, weights=new.weights)
    return config_differences(*(dataclasses.asdict(each) for each in (old, new)))


def local_cache(path: str | Path) -> Path:
    """The folder of a cache, which is on this machine.

    Raises:
      TeacherCacheError: it is remote.
    """
    if is_remote(path):
        raise TeacherCacheError(
            f"teacher.cache: {str(path)!r} is remote; copy it to a folder of this machine"
        )
    return local_folder(path)
