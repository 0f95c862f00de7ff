"""Opens GGUF files: every part of a split model, and no byte beyond the end of a file."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader

from adakd_jax.hf.model_files import ModelFileError, unusable

# How llama.cpp names the parts of a split model.
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


class BoundedReader(GGUFReader):
    """The library's reader, which by itself reads on and on beyond the end of a file."""

    def _get(self, offset: Any, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
        end = int(offset) + int(count) * np.dtype(dtype).itemsize
        if end > len(self.data):
            raise ValueError(f"it has {len(self.data):,} bytes, and announces {end:,} or more")
        return super()._get(offset, dtype, count, override_order)


class Metadata(dict[str, Any]):
    """Keys and values of a file; a key that is absent is an error about the file."""

    def __init__(self, path: Path, values: dict[str, Any]):
        """Takes what the file holds."""
        super().__init__(values)
        self._path = path

    def __missing__(self, key: str) -> Any:
        """Raises ModelFileError, which names file and key."""
        raise ModelFileError(f"{self._path}: the metadata lack {key}")


def open_parts(path: Path) -> tuple[Metadata, list[GGUFReader]]:
    """The metadata of a model and the readers of all its files, which hold memory maps.

    Args:
        path: the only file, or any part of a split model; the others stand beside it.

    Raises:
        ModelFileError: one is not a whole GGUF file, or a part is missing.
    """
    readers = [_opened(path)]
    count = int(_value(readers[0], "split.count", 1))
    files = [path] if count <= 1 else _parts(path, count)
    if len(files) > 1:
        readers = [readers[0] if file == path else _opened(file) for file in files]
    with naming(files[0]):
        values = {name: field.contents() for name, field in readers[0].fields.items()}
    return Metadata(files[0], values), readers


def files_of(path: Path) -> list[Path]:
    """A GGUF file, with all others of the same model if its name says that it was split.

    Raises:
        ModelFileError: some of them are not there.
    """
    match = _PART.fullmatch(path.name)
    return [path] if match is None else _parts(path, int(match[3]))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with its content.

    Raises:
        ModelFileError: in place of any error; libraries raise what they like of a broken file.
    """
    try:
        yield
    except (ModelFileError, OSError):
        raise
    except ValueError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise unusable(path, f"has metadata that cannot be read ({said})") from error


def _opened(path: Path) -> GGUFReader:
    try:
        return BoundedReader(path)
    except OSError:
        raise
    except Exception as error:
        raise unusable(path, f"is not a readable GGUF file: {error}") from error


def _value(reader: GGUFReader, key: str, default: Any) -> Any:
    field = reader.get_field(key)
    return default if field is None else field.contents()


def _parts(path: Path, count: int) -> list[Path]:
    match = _PART.fullmatch(path.name)
    if match is None or int(match[3]) != count:
        raise ModelFileError(
            f"{path} is one of {count} files of a model, and without its name the others cannot "
            f"be found; valid: NAME-00001-of-{count:05d}.gguf and so on, as llama.cpp splits them"
        )
    files = [
        path.with_name(f"{match[1]}-{part + 1:05d}-of-{count:05d}.gguf") for part in range(count)
    ]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise ModelFileError(
            f"{path} is one of {count} files of a model, of which are not there: "
            f"{', '.join(absent)}; put all into one folder"
        )
    return files
