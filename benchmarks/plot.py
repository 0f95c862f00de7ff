"""A picture of the loss alone: time and memory against tokens and against the vocabulary."""

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from benchmarks.results import Results, Row
from benchmarks.suite import (
    AT_TOKENS,
    AT_VOCABULARY,
    SWEEP,
    SWEPT_TOKENS,
    SWEPT_VOCABULARIES,
    Point,
)

MEASURES: dict[str, Callable[[Row], float]] = {
    "seconds": lambda row: row.seconds,
    "peak GiB of the process": lambda row: row.peak_gib,
}


def plot_sweep(results: Results, file: Path) -> list[Path]:
    """Draw what has been measured of the sweep; returns the files written, none without points."""
    sweeps = {
        f"tokens, V = {AT_VOCABULARY:,}": (
            SWEPT_TOKENS,
            lambda how, size: Point(how, size, AT_VOCABULARY),
        ),
        f"vocabulary, {AT_TOKENS} tokens": (
            SWEPT_VOCABULARIES,
            lambda how, size: Point(how, AT_TOKENS, size),
        ),
    }
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), sharey="row", layout="constrained")
    drawn = False
    for column, (label, (sizes, point)) in enumerate(sweeps.items()):
        for how in ("dense", "chunked"):
            rows = [results.row(SWEEP.name, point(how, size).contender.name) for size in sizes]
            known = [(size, row) for size, row in zip(sizes, rows, strict=True) if row is not None]
            for panel, (name, measure) in zip(axes[:, column], MEASURES.items(), strict=True):
                values = [measure(row) for _, row in known]
                panel.plot([size for size, _ in known], values, marker="o", label=how)
                panel.set(xlabel=label, ylabel=name if column == 0 else None, ylim=(0, None))
                panel.grid(alpha=0.3)
            drawn = drawn or bool(known)
    axes[0, 0].legend()
    figure.suptitle("AdaKD loss and gradients, r = 0.75, D = 576, float32")
    if drawn:
        figure.savefig(file, dpi=110)
    pyplot.close(figure)
    return [file] if drawn else []
