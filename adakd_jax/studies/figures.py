"""Plots of a study, small enough for a repository."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adakd_jax.studies.comparison import MethodSummary
from adakd_jax.studies.metrics import METRICS, Metric

_DPI = 90
_SMOOTHING = 20  # a curve is a running mean over this part of the run
Records = Sequence[Mapping[str, Any]]


def save_figure(figure: Figure, file: epath.Path) -> None:
    """Write a figure as PNG."""
    with file.open("wb") as target:
        figure.savefig(target, format="png", dpi=_DPI)


def metrics_figure(summaries: Sequence[MethodSummary], baseline: str) -> Figure | None:
    """Every metric by method: a dot a seed, the mean with its standard error, the baseline as a
    line; None without a result.
    """
    metrics = [m for m in METRICS if any(m.name in s.means for s in summaries)]
    if not metrics:
        return None
    figure = Figure((1.6 + 2.1 * len(metrics), 1.2 + 0.32 * len(summaries)), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        _dots(panel, metric, summaries, baseline)
    panels[0].set_yticks(range(len(summaries)), [summary.method for summary in summaries])
    panels[0].invert_yaxis()
    return figure


def curves_figure(runs: Mapping[str, Sequence[Records]]) -> Figure | None:
    """Kept ratio, temperatures and reverse KL while training, averaged over seeds; None without a
    record.

    Args:
        runs: by method, the training records of each seed.
    """
    if not any(records for seeds in runs.values() for records in seeds):
        return None
    figure = Figure((11, 3.4 + 0.18 * len(runs)), layout="constrained")
    panels = figure.subplots(1, 3)
    names = {"reverse_kl": "reverse KL of the batch", "keep_ratio": "kept ratio r"}
    names["temperature_q50"] = "τ: median, 10th to 90th percentile"
    colours = colormaps["tab10" if len(runs) <= 10 else "tab20"]
    for panel, (name, title) in zip(panels, names.items(), strict=True):
        for index, (method, seeds) in enumerate(runs.items()):
            _curve(panel, name, seeds, colours(index % colours.N), method)
        panel.set_title(title, fontsize="medium")
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
    # Not every method has every curve.
    drawn = {
        label: line
        for panel in panels
        for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=4)
    return figure


def _dots(panel: Axes, metric: Metric, summaries: Sequence[MethodSummary], baseline: str) -> None:
    for row, summary in enumerate(summaries):
        mean = summary.means.get(metric.name)
        if mean is None:
            continue
        values = [
            result.metrics[metric.name] * metric.scale
            for result in summary.results.values()
            if metric.name in result.metrics
        ]
        panel.plot(values, [row + 0.25] * len(values), ".", color="0.6")
        error = None if mean.error is None else mean.error * metric.scale
        panel.errorbar(mean.value * metric.scale, row, xerr=error, fmt="o", color="C0", capsize=3)
        if summary.method == baseline:
            panel.axvline(mean.value * metric.scale, color="0.8", zorder=1)
    better = "lower" if metric.lower_is_better else "higher"
    panel.set_title(f"{metric.title}\n({better} is better)", fontsize="medium")
    panel.grid(axis="x", alpha=0.3)


def _curve(panel: Axes, name: str, seeds: Sequence[Records], colour: Any, label: str) -> None:
    steps, values = _average(seeds, name)
    if not len(steps):
        return
    panel.plot(steps, _smooth(values), color=colour, label=label, linewidth=1.2)
    if name.endswith("_q50"):
        low, high = (_smooth(_average(seeds, name[:-3] + tail)[1]) for tail in ("q10", "q90"))
        if len(low) == len(high) == len(steps):
            panel.fill_between(steps, low, high, color=colour, alpha=0.08, linewidth=0)


def _average(seeds: Sequence[Records], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps at which any seed has the number, and its mean over those that do."""
    found: dict[int, list[float]] = {}
    for records in seeds:
        for record in records:
            if record["kind"] == "train" and record.get(name) is not None:
                found.setdefault(record["step"], []).append(record[name])
    steps = sorted(found)
    return np.asarray(steps), np.asarray([np.mean(found[step]) for step in steps])


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running mean, over less at both ends."""
    width = max(1, len(values) // _SMOOTHING)
    window = np.ones(width)
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")
