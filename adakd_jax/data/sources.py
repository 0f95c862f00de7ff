"""Rows from files, TFDS or the hub: read and checked once, kept as ArrayRecord."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

from adakd_jax.config.data import Columns, HubSource, Source, TfdsSource
from adakd_jax.data.cache import content_key, file_digest, local_folder, prepared_folder
from adakd_jax.data.files import source_files
from adakd_jax.data.progress import track
from adakd_jax.data.readers import RawRow, read_rows
from adakd_jax.data.row_source import ReadReport, RowSource
from adakd_jax.data.rows import Row, RowError, normalize_row
from adakd_jax.data.shapes import columns_read, recognise

# Changes whenever the same files would give other rows.
_FORMAT = 5
_REASONS_KEPT = 100


class MalformedRowsError(ValueError):
    """Rows that cannot be used, under on_error='fail'; names file, line and reason of each."""


class EmptyDataError(ValueError):
    """A source without a single usable row."""


class Flags(NamedTuple):
    """How the command that reads rows calls the settings that errors speak of."""

    columns: str = "--data.columns"
    skip: str | None = "data.on_error: skip"


OF_A_RUN = Flags()
OWN_ROWS = Flags("--columns", None)


def open_rows(
    source: Source,
    *,
    columns: Columns,
    on_error: Literal["fail", "skip"] = "fail",
    cache_dir: str | Path = "~/.cache/adakd_jax/data",
    max_rows: int | None = None,
    require_output: bool = True,
    flags: Flags = OF_A_RUN,
) -> RowSource:
    """Opens a source's rows, preparing them first if this content was not prepared before.

    Rows go through a TFDS builder into ArrayRecord files in a folder of `cache_dir` named by the
    content of the files, the columns and the limit, so that later starts open it at once and
    changed files are read again.

    Args:
      source: files, a TFDS name or a hub data set.
      columns: the names under which rows keep their parts.
      on_error: whether a malformed row stops the run ('fail') or is left out and reported ('skip').
      cache_dir: local folder of prepared data.
      max_rows: use only the first usable rows; at least 1.
      require_output: whether a row without an answer is malformed.
      flags: what errors call the settings.

    Returns:
      The rows.

    Raises:
      MalformedRowsError: malformed rows under 'fail'; lists them.
      EmptyDataError: no usable row.
      DataNotFoundError: the source cannot be reached.
    """
    folder_of_all = local_folder(cache_dir)
    origin = _open_origin(source, columns, folder_of_all)
    key = content_key(
        format=_FORMAT,
        source=origin.identity,
        columns=columns.model_dump(),
        max_rows=max_rows,
        require_output=require_output,
    )

    def write(folder: Path) -> None:
        report = _prepare(folder, origin, columns, max_rows, require_output)
        if not report.rows:
            raise EmptyDataError(_nothing_usable(report, flags))
        report.save(folder)

    folder = prepared_folder(folder_of_all, f"rows-{key}", write)
    report = ReadReport.load(folder)
    if report.skipped and on_error == "fail":
        raise MalformedRowsError(_malformed(report, flags))
    return RowSource(folder, report, key)


@dataclass(frozen=True)
class _Origin:
    """A source that was found: its name for people, its content's identity, and how to read it."""

    name: str
    identity: Any
    read: Callable[[], Iterator[RawRow]]


def _open_origin(source: Source, columns: Columns, cache_dir: Path) -> _Origin:
    if isinstance(source, TfdsSource):
        from adakd_jax.data import builder

        identity, read = builder.open_tfds(source)
        return _Origin(f"{source.name}/{source.split}", identity, read)
    files = source_files(source)
    # The short name if it is enough to tell the files apart.
    short = [file.name for file in files]
    names = short if len(set(short)) == len(short) else [str(file) for file in files]
    identity = [
        [name, file_digest(file, cache_dir)] for name, file in zip(names, files, strict=True)
    ]
    wanted = columns_read(columns)

    def read() -> Iterator[RawRow]:
        for name, file in zip(names, files, strict=True):
            yield from read_rows(file, name, wanted)

    name = source.name if isinstance(source, HubSource) else ", ".join(_first(names, 3))
    return _Origin(name, identity, read)


def _first(names: list[str], count: int) -> list[str]:
    return names if len(names) <= count else [*names[:count], f"… ({len(names)} files)"]


def _prepare(
    folder: Path, origin: _Origin, columns: Columns, max_rows: int | None, require_output: bool
) -> ReadReport:
    """Writes usable rows; reads on after a malformed row, so that all are named."""
    from adakd_jax.data import builder

    usable, skipped, errors, reasons = 0, 0, 0, []
    shapes, missing = Counter[str](), dict[str, None]()

    def rows() -> Iterator[Row]:
        nonlocal usable, skipped, errors, missing
        for raw in track(origin.read(), f"reading {origin.name}"):
            if usable == max_rows:
                return
            try:
                row = _checked(raw, columns, require_output)
            except RowError as error:
                skipped, errors = skipped + raw.lost, errors + 1
                missing |= {} if error.part is None else {error.part: None}
                if len(reasons) < _REASONS_KEPT:
                    reasons.append(f"{raw.origin}: {error}")
                continue
            usable += 1
            told = recognise(raw.content, columns).told
            shapes.update([] if told is None else [told])
            yield row

    generated = rows()
    first = next(generated, None)
    if first is not None:
        builder.write_rows(folder, lambda: chain([first], generated))
    return ReadReport(
        name=origin.name,
        rows=usable,
        skipped=skipped,
        errors=errors,
        reasons=tuple(reasons),
        shapes=dict(shapes.most_common()),
        missing=tuple(missing),
    )


def _malformed(report: ReadReport, flags: Flags) -> str:
    count = f"{report.skipped} of {report.rows + report.skipped} rows of {report.name}"
    ways = "repair them" + (f", or leave them out with {flags.skip}" if flags.skip else "")
    return f"{count} are malformed:\n{report.listing()}{_column_hint(report, flags)}\n{ways}"


def _nothing_usable(report: ReadReport, flags: Flags) -> str:
    if not report.skipped:
        return f"{report.name} is empty: it has no row at all"
    listing = report.listing() + _column_hint(report, flags)
    return f"no row of {report.name} can be used; all {report.skipped} are malformed:\n{listing}"


def _column_hint(report: ReadReport, flags: Flags) -> str:
    """How to name columns, if rows seem to lack what has another name."""
    if "instruction" in report.missing:
        names = f"{flags.columns}.instruction and .output, .messages, or .text"
    elif "output" in report.missing:
        names = f"{flags.columns}.output"
    else:
        return ""
    return f"\nif its columns have other names, give them with {names}"


def _checked(raw: RawRow, columns: Columns, require_output: bool) -> Row:
    if raw.error is not None:
        raise RowError(raw.error)
    return normalize_row(raw.content, columns, origin=raw.origin, require_output=require_output)
