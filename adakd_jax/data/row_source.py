"""Random access to prepared rows, with the report of how they were read."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from adakd_jax.data.cache import content_key
from adakd_jax.data.rows import Row

_REASONS_SHOWN = 10
_REPORT = "report.json"


@dataclass(frozen=True)
class ReadReport:
    """What reading a source met: usable rows, skipped ones, and why.

    `errors` skipped the rows, one each or, in a broken file, several; `reasons` read
    'file:line: reason' and are the first 100. `shapes` counts the usable rows whose
    parts were found under other names than the settings say, by what was found. `missing` are the
    fields of `data.columns` whose columns skipped rows seem to lack.
    """

    name: str
    rows: int
    skipped: int
    errors: int
    reasons: tuple[str, ...]
    shapes: dict[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line, and one for each of the first skipped rows."""
        line = f"{self.name}: {self.rows} rows{self.recognised()}"
        return f"{line}, {self.skipped} skipped\n{self.listing()}" if self.skipped else line

    def recognised(self) -> str:
        """Where parts were found that have other names than the settings say; empty if none was."""
        if not self.shapes:
            return ""
        if list(self.shapes.values()) == [self.rows]:
            return f" ({next(iter(self.shapes))})"
        counts = (f"{rows}: {what}" for what, rows in self.shapes.items())
        return f" ({'; '.join(counts)})"

    def listing(self) -> str:
        """What skipped the first rows, one a line."""
        return listing(self.reasons, self.errors)

    def save(self, folder: Path) -> None:
        """Writes the report beside the rows."""
        (folder / _REPORT).write_text(json.dumps(asdict(self), ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path) -> "ReadReport":
        """Reads what `save` wrote."""
        stored = json.loads((folder / _REPORT).read_text())
        tuples = {name: tuple(stored[name]) for name in ("reasons", "missing")}
        return cls(**{**stored, **tuples})


def listing(reasons: Sequence[str], count: int) -> str:
    """The first of `count` reasons, one a line, and how many more there are."""
    shown = [f"  {reason}" for reason in reasons[:_REASONS_SHOWN]]
    more = count - len(shown)
    return "\n".join(shown + ([f"  … and {more} more"] if more > 0 else []))


class RowSource(Sequence[Row]):
    """Random access to prepared rows; `report` says what was met, `key` names the content."""

    def __init__(
        self, folder: Path, report: ReadReport, key: str, indices: np.ndarray | None = None
    ):
        """Opens a prepared folder; `indices` restricts it to some of its rows, in that order."""
        self.report = report
        self.key = key
        self._folder = folder
        self._indices = np.arange(report.rows) if indices is None else indices

    @cached_property
    def _records(self) -> Any:
        # Imported late: a run whose tokens are prepared too never reads a row and starts without
        # TFDS.
        from adakd_jax.data import builder

        return builder.open_data_source(self._folder)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "RowSource": ...
    def __getitem__(self, index: int | slice) -> "Row | RowSource":
        """Returns one row, or the rows of a slice as a source of their own."""
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> list[Row]:
        """Reads several rows at once, which is faster than one by one."""
        from adakd_jax.data import builder

        places = self._indices[np.asarray(indices)].tolist()
        return [builder.parse(record) for record in self._records.__getitems__(places)]

    def select(self, indices: Sequence[int] | np.ndarray) -> "RowSource":
        """Restricts the source to some of its rows, in that order."""
        places = self._indices[np.asarray(indices)]
        key = content_key(of=self.key, rows=places.tolist())
        return RowSource(self._folder, self.report, key, places)
