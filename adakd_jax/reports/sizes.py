"""Size against quality, before and after training, of students that are parts of their teacher."""

from collections.abc import Sequence

from adakd_jax.reports.charts import Chart, Line, Point
from adakd_jax.reports.gather import RunRecord

_STAGES = {"before": "as it was cut", "after": "after training"}
_METRICS = {"nll": ("NLL", "nll_teacher"), "forward_kl": ("Forward KL to the teacher", None)}
_MILLION = 1e6


def size_charts(runs: Sequence[RunRecord]) -> list[Chart]:
    """A chart for NLL and one for forward KL: a point for each run, and one for the teacher."""
    pruned = [run for run in runs if run.pruning and "after" in run.evaluations]
    charts = []
    for name, (title, of_teacher) in _METRICS.items():
        lines = [
            Line(label, _points(pruned, stage, name, of_teacher), colour=colour, dots=True)
            for colour, (stage, label) in enumerate(_STAGES.items())
        ]
        lines = [line for line in lines if len(line.points) > 1]
        if lines:
            charts.append(
                Chart(f"{title} by size", "nats per token", lines, across="million parameters")
            )
    return charts


def _points(
    runs: Sequence[RunRecord], stage: str, name: str, of_teacher: str | None
) -> list[Point]:
    found = set()
    for run in runs:
        measured, sizes = run.evaluations.get(stage, {}), run.pruning["parameters"]
        if name not in measured:
            continue
        found.add((sizes["student"] / _MILLION, float(measured[name])))
        best = 0.0 if of_teacher is None else measured.get(of_teacher)
        if best is not None:
            found.add((sizes["teacher"] / _MILLION, float(best)))
    return sorted(found)
