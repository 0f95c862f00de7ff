"""The TFDS builder that keeps normalised rows as ArrayRecord, and a reader of any TFDS data set."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.registered import DatasetNotFoundError

from adakd_jax.config.data import TfdsSource
from adakd_jax.data.files import DataNotFoundError
from adakd_jax.data.readers import RawRow
from adakd_jax.data.rows import Row
from adakd_jax.user_path import user_path

_SPLIT = "rows"


class InstructionRows(tfds.core.GeneratorBasedBuilder):
    """Rows of the common schema, each one JSON text: parsing one is faster than ragged features."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, rows: Callable[[], Iterator[Row]] | None = None, **kwargs: Any):
        """Takes the rows to write; a builder that only reads needs none."""
        self._rows = rows
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict({"row": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> Mapping[str, Any]:
        return {_SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, str]]]:
        if self._rows is None:
            raise ValueError("this builder only reads: it was given no rows to write")
        for index, row in enumerate(self._rows()):
            yield index, {"row": json.dumps(row, ensure_ascii=False)}


def write_rows(folder: Path, rows: Callable[[], Iterator[Row]]) -> None:
    """Writes rows, at least one, to a new ArrayRecord data set in `folder`."""
    builder = InstructionRows(rows=rows, data_dir=folder, file_format="array_record")
    tfds.display_progress_bar(False)
    # TFDS announces the folder on stdout; here that is a temporary one and says nothing to the
    # reader.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()


def open_data_source(folder: Path) -> Any:
    """Opens what `write_rows` wrote, for random access; its elements are read by `parse`."""
    builder: Any = InstructionRows(data_dir=folder, file_format="array_record")
    return builder.as_data_source(_SPLIT)


def parse(record: Mapping[str, bytes]) -> Row:
    """Reads one stored row."""
    return json.loads(record["row"])


def open_tfds(source: TfdsSource) -> tuple[dict[str, Any], Callable[[], Iterator[RawRow]]]:
    """Opens any TFDS data set, downloading and preparing it first if needed.

    Returns:
      What names its content, and a function that reads its rows; their origins are
      'name/split:row', from 1.

    Raises:
      DataNotFoundError: no such data set or split.
    """
    tfds.display_progress_bar(True)
    try:
        builder: Any = tfds.builder(
            source.name,
            data_dir=source.data_dir and user_path(source.data_dir),
            file_format="array_record",
        )
    except DatasetNotFoundError as error:
        raise DataNotFoundError(
            f"no TFDS data set {source.name!r}: {error}; "
            "valid: 'name', 'name/config', 'name:version'"
        ) from error
    builder.download_and_prepare()
    try:
        records = builder.as_data_source(source.split)
    except ValueError as error:
        splits = ", ".join(map(repr, builder.info.splits))
        raise DataNotFoundError(
            f"TFDS data set {source.name!r} has no split {source.split!r}; it has: {splits}"
        ) from error
    identity = {"name": builder.info.full_name, "split": source.split, "rows": len(records)}
    identity["bytes"] = builder.info.dataset_size

    def rows() -> Iterator[RawRow]:
        for index in range(len(records)):
            origin = f"{source.name}/{source.split}:{index + 1}"
            try:
                row = {name: _plain(value) for name, value in records[index].items()}
            except UnicodeDecodeError as error:
                yield RawRow(origin, None, f"not valid UTF-8 at byte {error.start} of a value")
            else:
                yield RawRow(origin, row)

    return identity, rows


def _plain(value: Any) -> Any:
    """Turns TFDS's values into JSON's."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        fields = {name: _plain(item) for name, item in value.items()}
        if all(isinstance(items, list) for items in fields.values()):
            # A sequence of objects comes as an object of sequences.
            return [
                dict(zip(fields, items, strict=True))
                for items in zip(*fields.values(), strict=True)
            ]
        return fields
    return value
