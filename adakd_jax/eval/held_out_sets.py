"""From what a command line names to rows: suites from a file, a folder or the hub; or any rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from adakd_jax.config import Columns, FileSource, HubSource, Source
from adakd_jax.config.suites import SUITES, SuiteName
from adakd_jax.data.readers import KINDS, SUFFIXES
from adakd_jax.data.row_source import RowSource
from adakd_jax.data.sources import OWN_ROWS, open_rows
from adakd_jax.user_path import user_path

_HUB = "hub:"


class HeldOutSet(NamedTuple):
    """Rows to evaluate on, with a name for files and a title for tables."""

    name: str
    title: str
    rows: RowSource


def open_sets(
    suites: Sequence[SuiteName],
    data: str | None,
    *,
    columns: Columns,
    cache_dir: str | Path = "~/.cache/adakd_jax/data",
    require_output: bool = True,
) -> list[HeldOutSet]:
    """Opens named suites, or other rows.

    Args:
      suites: names, e.g. ('dolly', 'vicuna'); none: `data` is a set of its own.
      data: file(s) of rows, or 'hub:OWNER/NAME' with ':FILES' after it where the hub set has more
        than one file; for several suites a folder that has one file of the name of
        each, e.g. dolly.jsonl; None: each suite from where it is published.
      columns: the names under which rows keep their parts.
      cache_dir: local folder of prepared data.
      require_output: whether a row without an answer is malformed.

    Raises:
      ValueError: a suite that is not published, or not in the folder; see also `open_rows`.
    """
    options = {
        "columns": columns,
        "cache_dir": cache_dir,
        "require_output": require_output,
        "flags": OWN_ROWS,
    }
    if not suites:
        if data is None:
            raise ValueError("nothing to evaluate on; valid: --suite, --data or both")
        rows = open_rows(_source(data), **options)
        return [HeldOutSet("data", data, rows)]
    sources = [_suite_source(name, data, len(suites)) for name in suites]  # all found, or none
    opened = [open_rows(source, **options) for source in sources]
    return [
        HeldOutSet(name, SUITES[name].title, rows)
        for name, rows in zip(suites, opened, strict=True)
    ]


def _source(data: str) -> Source:
    if not data.startswith(_HUB):
        return FileSource(path=data)
    name, _, files = data.removeprefix(_HUB).partition(":")
    return HubSource(name=name, files=files or "*")


def _suite_source(name: SuiteName, data: str | None, count: int) -> Source:
    if data is None:
        hub = SUITES[name].hub
        if hub is None:
            raise ValueError(
                f"suite {name} is published nowhere as one file; valid: --data with your own copy"
            )
        return hub
    folder = user_path(data)
    if not data.startswith(_HUB) and folder.is_dir():
        files = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
        found = [file for file in files if file.is_file()]
        if not found:
            raise ValueError(f"suite {name}: {data} has no {name}.jsonl; valid too: {KINDS}")
        return FileSource(path=str(found[0]))
    if count > 1:
        raise ValueError(
            f"{data!r} is one set of rows, but there are {count} suites; valid: a folder with a "
            "file for each (dolly.jsonl, …), or one suite"
        )
    return _source(data)
