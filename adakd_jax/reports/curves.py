"""Which charts a page has, from the records of its runs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from adakd_jax.reports.charts import Chart, Line, Point, thinned
from adakd_jax.reports.gather import RunRecord

_WINDOWS = 20  # a smoothed line averages over 1/20 of the steps
_SMOOTHED = "thin: every step; bold: mean over the last {} steps"


class Quantity(NamedTuple):
    """A column of the records, what it is called, and that of held-out evaluations, if any."""

    column: str
    label: str
    dots: str = ""
    positive: bool = False  # 0 means that there is no value yet


class Panel(NamedTuple):
    """A chart to be made of some quantities.

    `noisy` ones get a smoothed line over the raw one. `spread` draws the quantiles q10 to q90 of a
    column, q25 to q75 included, around its median.
    """

    title: str
    unit: str
    quantities: Sequence[Quantity]
    noisy: bool = False
    spread: bool = False
    within: tuple[float, ...] = ()
    note: str = ""


PANELS = (
    Panel(
        "Loss",
        "what is minimised, nats per token",
        [Quantity("loss", "loss")],
        noisy=True,
    ),
    Panel(
        "KL to the teacher",
        "nats per response token at τ = 1",
        [
            Quantity("forward_kl", "forward KL", dots="forward_kl"),
            Quantity("reverse_kl", "reverse KL", dots="reverse_kl"),
        ],
        noisy=True,
        note="dots: on held-out rows",
    ),
    Panel(
        "NLL",
        "nats per response token",
        [Quantity("ce_loss", "NLL", dots="nll")],
        noisy=True,
        note="dots: on held-out rows",
    ),
    Panel(
        "Kept tokens r",
        "share of the response tokens",
        [Quantity("keep_ratio", "r")],
        within=(0.0, 1.0),
    ),
    Panel(
        "LATF",
        "watched loss: average, and the reference for r",
        [
            Quantity("latf_ema", "average"),
            Quantity("latf_reference", "reference", positive=True),
        ],
    ),
    Panel(
        "Difficulty of tokens",
        "score of the response tokens",
        [Quantity("score", "median")],
        spread=True,
    ),
    Panel(
        "Temperature τ",
        "of the kept tokens",
        [Quantity("temperature", "median")],
        spread=True,
    ),
    Panel(
        "Hidden states",
        "mean squared distance of hard tokens",
        [Quantity("feature_loss", "distance")],
        noisy=True,
    ),
    Panel(
        "Balance of experts",
        "load-balancing loss; as many as a token has experts where all are loaded alike",
        [Quantity("balance_loss", "loss")],
        noisy=True,
    ),
    Panel(
        "Load of experts",
        "share of the tokens, of the expert of any layer",
        [
            Quantity("most_loaded_expert", "with the most"),
            Quantity("least_loaded_expert", "with the fewest"),
        ],
        within=(0.0,),
    ),
    Panel(
        "Routers",
        "entropy of the experts' probabilities, nats",
        [Quantity("router_entropy", "mean")],
        within=(0.0,),
    ),
    Panel(
        "Throughput",
        "tokens per second, padding not counted",
        [
            Quantity("tokens_per_second", "all"),
            Quantity("response_tokens_per_second", "response"),
        ],
        within=(0.0,),
    ),
    Panel(
        "Memory",
        "GiB, highest so far",
        [
            Quantity("host_peak_gib", "host process"),
            Quantity("device_peak_gib", "fullest device"),
        ],
        within=(0.0,),
    ),
    Panel(
        "Gradient norm",
        "before clipping",
        [Quantity("grad_norm", "norm")],
        noisy=True,
    ),
    Panel(
        "Gradient norm of a token",
        "mean over the hardest and the easiest quarter of the kept tokens",
        [
            Quantity("gradient_norm_hard", "hardest"),
            Quantity("gradient_norm_easy", "easiest"),
        ],
        noisy=True,
        within=(0.0,),
    ),
    Panel(
        "Learning rate",
        "of the accepted updates",
        [Quantity("learning_rate", "rate")],
        within=(0.0,),
    ),
)


def charts_of(runs: Sequence[RunRecord]) -> list[Chart]:
    """Every chart that some run has records for.

    Of one run, colours tell quantities apart. Of several, colours tell runs apart and dashes
    quantities.
    """
    charts = []
    for panel in PANELS:
        lines = [line for index, run in enumerate(runs) for line in _lines(panel, runs, index)]
        if lines:
            charts.append(Chart(panel.title, panel.unit, lines, _note(panel, runs), panel.within))
    return charts


def _lines(panel: Panel, runs: Sequence[RunRecord], index: int) -> Iterator[Line]:
    run, several = runs[index], len(runs) > 1
    for number, quantity in enumerate(panel.quantities):
        column = f"{quantity.column}_q50" if panel.spread else quantity.column
        points = [p for p in series(run.train, column) if p[1] > 0 or not quantity.positive]
        if quantity.column == "score" and _no_difficulty(run):
            continue
        colour, dash = (index, number) if several else (number, 0)
        label = _label(panel, quantity, run, several)
        if points and panel.spread:
            bands = _bands(run, quantity.column, several)
            yield Line(label, thinned(points), colour, dash, bands)
        elif points and panel.noisy:
            window = _window(run)
            yield Line(label, thinned(points), colour, dash, faint=window > 1)
            if window > 1:
                yield Line(label, thinned(running_mean(points, window)), colour, dash)
        elif points:
            yield Line(label, thinned(points), colour, dash)
        measured = _measured(run, quantity.dots)
        if measured:
            yield Line(f"{label}, held out", measured, colour, dash, dots=True)


def _no_difficulty(run: RunRecord) -> bool:
    """Whether all tokens count as equally difficult, which is no news."""
    score = (run.settings.get("distill") or {}).get("score") or {}
    return score.get("kind") == "uniform"


def _label(panel: Panel, quantity: Quantity, run: RunRecord, several: bool) -> str:
    if not several:
        return quantity.label
    return run.name if len(panel.quantities) == 1 else f"{run.name}: {quantity.label}"


def series(records: Sequence[Mapping[str, Any]], column: str) -> list[Point]:
    """The finite values of a column by step."""
    found = [(record["step"], record.get(column)) for record in records]
    return [(step, value) for step, value in found if value is not None and math.isfinite(value)]


def running_mean(points: Sequence[Point], window: int) -> list[Point]:
    """At each step the mean of the last `window` values, fewer at the beginning."""
    sums = list(accumulate((value for _, value in points), initial=0.0))
    return [
        (step, (sums[end] - sums[max(0, end - window)]) / min(end, window))
        for end, (step, _) in enumerate(points, start=1)
    ]


def _window(run: RunRecord) -> int:
    return max(1, len(run.train) // _WINDOWS)


def _bands(run: RunRecord, column: str, several: bool) -> list[tuple[list[Point], list[Point]]]:
    """Areas around a median; of several runs the wide one alone, or nothing could be seen."""
    pairs = [("q10", "q90")] if several else [("q10", "q90"), ("q25", "q75")]
    bands = []
    for low, high in pairs:
        edges = [thinned(series(run.train, f"{column}_{edge}")) for edge in (low, high)]
        if all(edges):
            bands.append((edges[0], edges[1]))
    return bands


def _measured(run: RunRecord, column: str) -> list[Point]:
    """Held-out values before, during and after training."""
    if not column:
        return []
    points = dict(series(run.held_out, column))
    for when, step in (("before", 0), ("after", run.last_step)):
        if column in run.evaluations.get(when, {}):
            points[step] = run.evaluations[when][column]
    return sorted(points.items())


def _note(panel: Panel, runs: Sequence[RunRecord]) -> str:
    parts = []
    windows = sorted({_window(run) for run in runs if run.train})
    if panel.noisy and windows and windows[-1] > 1:
        parts.append(_SMOOTHED.format(" or ".join(map(str, windows))))
    if panel.spread:
        widths = "10th to 90th percentile"
        if len(runs) == 1:
            widths += ", darker 25th to 75th"
        parts.append(f"line: median; area: {widths}")
    has_dots = any(_measured(run, q.dots) for run in runs for q in panel.quantities)
    if panel.note and has_dots:
        parts.append(panel.note)
    return "; ".join(parts)
