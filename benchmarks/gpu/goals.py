"""The goals, held against what the parts have found."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks.gpu.options import Options, Row

MFU, ADAKD_OVER_PLAIN, OVER_TORCH = 0.45, 1.08, 1.3


class Goal(NamedTuple):
    """What was aimed at, what was found, and whether that will do; None: not measured."""

    title: str
    found: str
    passed: bool | None


def goals(options: Options) -> list[Goal]:
    """All of them, in order."""
    steps, large = options.rows_of("steps"), options.rows_of("large")
    dolly = [row for row in options.rows_of("torch_steps") if "Dolly rows, " in row["what"]]
    judged = not options.small  # tiny sizes say nothing of speed
    torch = _values(dolly, "ours_over_this", lambda row: "torch, plain" in row["what"])
    ratios = _values([*steps, *large], "over_plain", lambda row: "r = 1" in row["what"])
    shares = _values(large, "mfu", lambda row: "plain" in row["what"])
    return [
        _goal(
            f"MFU ≥ {MFU:.0%}, Qwen2-7B → 1.5B", shares,
            lambda x: x >= MFU, min, "{:.1%}", judged,
        ),
        _goal(
            f"AdaKD at r = 1 ≤ {ADAKD_OVER_PLAIN} × plain", ratios,
            lambda x: x <= ADAKD_OVER_PLAIN, max, "{:.3f}", judged,
        ),
        _goal(
            f"≥ {OVER_TORCH} × torch's tokens a second on Dolly rows, its best", torch,
            lambda x: x >= OVER_TORCH, min, "{:.2f}", judged,
        ),
        *_checks(options),
    ]  # fmt: skip


def _values(rows: list[Row], name: str, chosen: Callable[[Row], bool]) -> list[float]:
    return [row[name] for row in rows if name in row and chosen(row)]


def _goal(
    title: str,
    values: list[float],
    holds: Callable[[float], bool],
    worst: Callable[[list[float]], float],
    form: str,
    judged: bool,
) -> Goal:
    """By the worst of all values."""
    if not values:
        return Goal(title, "not measured", None)
    found = ", ".join(map(form.format, values))
    return Goal(title, found, holds(worst(values)) if judged else None)


def _checks(options: Options) -> Iterator[Goal]:
    """Parts that hold numbers to a limit row by row."""
    for part in ("families", "smollm2", "loss", "attention", "plan"):
        rows = options.rows_of(part)
        checked = [row for row in rows if "passed" in row]
        failed = [row["what"] for row in rows if not row.get("passed", True) or "error" in row]
        text = f"{len(checked) - sum(not row['passed'] for row in checked)} of {len(rows)}"
        verdict = None if not checked else not failed
        yield Goal(f"{part}: within its limits", text if rows else "not measured", verdict)
