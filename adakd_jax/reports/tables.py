"""Numbers and settings of the runs, as cells of tables."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from adakd_jax.config.provenance import config_differences
from adakd_jax.config.schema import written
from adakd_jax.reports.charts import number
from adakd_jax.reports.gather import RunRecord
from adakd_jax.training.display import duration

_STAGES = {"before": "before training", "after": "after training"}


class Metric(NamedTuple):
    """A held-out number: its column title, and how it is written."""

    title: str
    form: str
    scale: float = 1.0
    lower_is_better: bool = True


METRICS = {
    "nll": Metric("NLL", "{:.3f}"),
    "nll_teacher": Metric("NLL of the teacher", "{:.3f}"),
    "forward_kl": Metric("forward KL", "{:.3f}"),
    "reverse_kl": Metric("reverse KL", "{:.3f}"),
    "top1_agreement": Metric("top-1 agreement, %", "{:.1f}", 100.0, lower_is_better=False),
    "calibration_error": Metric("calibration error, %", "{:.1f}", 100.0),
    "rouge_l": Metric("ROUGE-L × 100", "{:.1f}", 100.0, lower_is_better=False),
}


class Cell(NamedTuple):
    """A number, its interval, and whether it is the best of its column after training."""

    value: str
    interval: str = ""
    best: bool = False


class EvaluationRow(NamedTuple):
    """What one evaluation found: a cell per metric of the table."""

    run: str
    stage: str
    tokens: int
    cells: list[Cell]


class EvaluationTable(NamedTuple):
    """Evaluations side by side."""

    titles: list[str]
    rows: list[EvaluationRow]


class Fact(NamedTuple):
    """A line of what a run is."""

    name: str
    value: str


def evaluation_table(runs: Sequence[RunRecord]) -> EvaluationTable | None:
    """The held-out numbers of all runs; None if there are none."""
    found = [
        (run, stage, run.evaluations[stage])
        for run in runs
        for stage in _STAGES
        if stage in run.evaluations
    ]
    names = [name for name in METRICS if any(name in values for _, _, values in found)]
    if not names:
        return None
    best = _best({run.name: values for run, stage, values in found if stage == "after"})
    rows = [
        EvaluationRow(
            run.name,
            _STAGES[stage],
            values["tokens"],
            [
                _cell(name, values, stage == "after" and run.name in best.get(name, ()))
                for name in names
            ],
        )
        for run, stage, values in found
    ]
    results = [values for _, _, values in found]
    return EvaluationTable([_title(name, results) for name in names], rows)


def _title(name: str, results: Iterable[Mapping[str, Any]]) -> str:
    """A metric's title, and by which words, where these are not those of English."""
    other = name == "rouge_l" and any("rouge_l_any_script" in result for result in results)
    return METRICS[name].title + (", words of any script" if other else "")


def _best(results: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """By metric, the runs that are best, if there are several to choose from."""
    best = {}
    for name, metric in METRICS.items():
        values = {run: result[name] for run, result in results.items() if name in result}
        if len(values) > 1 and name != "nll_teacher":
            top = (min if metric.lower_is_better else max)(values.values())
            best[name] = {run for run, value in values.items() if value == top}
    return best


def _cell(name: str, values: Mapping[str, Any], best: bool) -> Cell:
    if name not in values:
        return Cell("–")
    metric = METRICS[name]
    bounds = values.get("intervals", {}).get(name)
    if bounds is None and f"{name}_low" in values:
        bounds = values[f"{name}_low"], values[f"{name}_high"]
    low_high = [metric.form.format(metric.scale * bound) for bound in bounds or ()]
    interval = f"[{', '.join(low_high)}]" if low_high else ""
    return Cell(metric.form.format(metric.scale * values[name]), interval, best)


def facts(run: RunRecord) -> list[Fact]:
    """What a run is, and how far it got, in a few lines."""
    listed = [
        Fact("Method", run.story.get("method", "").replace("`", "")),
        Fact("Data", run.story.get("data", "")),
        Fact("Student", run.story.get("origin", "")),
        Fact("Teacher", run.story.get("teacher") or ("" if run.has_teacher else "none")),
        Fact("Training", _training(run)),
    ]
    if run.starts:
        start = run.starts[-1]
        devices = start.get("devices", [])
        packages = start.get("packages", {})
        versions = [f"{name} {packages[name]}" for name in ("adakd_jax", "jax") if name in packages]
        listed.append(Fact("Devices", f"{len(devices)}: {devices[0]}" if devices else ""))
        listed.append(Fact("Software", ", ".join([*versions, _revision(start)]).rstrip(", ")))
        listed.append(Fact("Last start", _time(start.get("time", ""))))
    return [fact for fact in listed if fact.value]


def _training(run: RunRecord) -> str:
    steps = (run.settings.get("training") or {}).get("steps")
    if not run.train:
        return "no step yet"
    # Records are every few steps: what lies between them took as long.
    seconds = [record["seconds"] for record in run.train if record.get("seconds")]
    whole = sum(seconds) / max(len(seconds), 1) * run.last_step
    total = f" of {steps:,}" if steps else ""
    skipped = run.train[-1].get("skipped_steps") or 0
    more = f", {skipped:.0f} update{'s' if skipped > 1 else ''} skipped" if skipped else ""
    return f"{run.last_step:,}{total} steps in {duration(whole)}{more}"


def _revision(start: Mapping[str, Any]) -> str:
    git = start.get("git")
    if not git:
        return ""
    return f"revision {git['revision'][:10]}" + (" with changes" if git.get("dirty") else "")


def _time(stamp: str) -> str:
    try:
        return f"{datetime.fromisoformat(stamp):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return stamp


def headline(run: RunRecord) -> list[tuple[str, str, str]]:
    """The numbers that say what a run achieved: (name, before or "", after)."""
    before, after = (run.evaluations.get(stage, {}) for stage in _STAGES)
    shown = []
    for name in ("nll", "forward_kl", "reverse_kl", "top1_agreement", "rouge_l"):
        if name in after:
            start = _cell(name, before, False).value if name in before else ""
            shown.append((_title(name, [after]), start, _cell(name, after, False).value))
    if not shown and run.train:
        first, last = run.train[0].get("loss"), run.train[-1].get("loss")
        if first is not None and last is not None:
            shown.append(("training loss", number(first), number(last)))
    return shown


class Difference(NamedTuple):
    """A setting that the runs do not share: its value in each of them."""

    key: str
    values: list[str]


def differences(runs: Sequence[RunRecord]) -> list[Difference]:
    """The settings in which any two runs differ; where they write to left out."""
    keys: dict[str, None] = {}
    for run in runs[1:]:
        for line in config_differences(runs[0].settings, run.settings):
            keys[line.split(": ", 1)[0]] = None
    free = ("run_dir", "data.cache_dir")
    return [
        Difference(key, [_setting(run.settings, key) for run in runs])
        for key in keys
        if key not in free
    ]


def _setting(settings: Mapping[str, Any], key: str) -> str:
    value: Any = settings
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return "–"
        value = value[name]
    return written(value)
