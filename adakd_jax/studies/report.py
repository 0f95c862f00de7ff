"""The outcome of a study, as far as it is finished: Markdown, CSV and plots."""

from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath
from matplotlib.figure import Figure

from adakd_jax.config.study import StudyConfig
from adakd_jax.config.suites import SUITES, SuiteName
from adakd_jax.studies.comparison import Difference, MethodSummary, summarise
from adakd_jax.studies.figures import curves_figure, metrics_figure, save_figure
from adakd_jax.studies.findings import HOW_TO_READ, finding_lines
from adakd_jax.studies.metrics import METRICS, Metric
from adakd_jax.studies.origin import method_lines, origin_lines
from adakd_jax.studies.plan import PlannedRun
from adakd_jax.studies.results import RunResult
from adakd_jax.studies.tables import as_csv, head, row
from adakd_jax.training.display import duration
from adakd_jax.training.records import read_records
from adakd_jax.user_path import user_path
from adakd_jax.whole_file import write_whole

REPORT = "report.md"
_HOW_TO_READ = """\
± is the standard error over seeds: how far another seed (data order, sampling) would move the \
mean. The best mean of a column is bold, whether or not the difference is resolved."""
_HOW_DIFFERENCES_ARE_TAKEN = """\
Method minus the one it is compared with, averaged over the seeds that both have. The interval \
holds 95% of a paired bootstrap over held-out examples (the same examples for both methods, \
tokens weighted equally; ROUGE-L: prompts): how far other examples would move the difference. \
*Better* and *worse* are said only where that interval excludes 0 and all seeds, at least two, \
agree in sign; everything else is unresolved. Each interval stands for itself: of twenty \
comparisons of equals, one is expected to exclude 0."""


def write_report(
    study: StudyConfig,
    runs: Sequence[PlannedRun],
    results: Sequence[RunResult],
    untrained: RunResult,
    argv: Sequence[str],
) -> list[epath.Path]:
    """Write report.md, results.csv, methods.csv, metrics.png and curves.png; of suites,
    suites.csv.

    Args:
        study: what was asked for.
        runs: its grid.
        results: those finished so far; the tables are of these alone.
        untrained: the student before training.
        argv: the exact command.

    Returns:
        the files written.
    """
    folder = user_path(study.output)
    places = {(run.method, run.seed): place for place, run in enumerate(runs)}
    results = sorted(results, key=lambda result: places[result.method, result.seed])
    summaries = summarise(study, results)
    text = "\n".join(_report(study, runs, summaries, results, untrained, argv)) + "\n"
    files = {
        REPORT: text,
        "results.csv": as_csv(_run_rows(results)),
        "methods.csv": as_csv(_method_rows(summaries)),
    }
    if study.suites:
        files["suites.csv"] = as_csv(_suite_rows(study.suites, results))
    for name, content in files.items():
        write_whole(folder / name, content)
    figures = _figures(study, runs, summaries)
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    return [folder / name for name in [*files, *figures]]


def _figures(
    study: StudyConfig, runs: Sequence[PlannedRun], summaries: Sequence[MethodSummary]
) -> dict[str, Figure]:
    curves = {
        summary.method: [
            read_records(run.config.run_dir)
            for run in runs
            if run.method == summary.method and run.seed in summary.results
        ]
        for summary in summaries
    }
    figures = {
        "metrics.png": metrics_figure(summaries, study.baseline),
        "curves.png": curves_figure(curves),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _report(
    study: StudyConfig,
    runs: Sequence[PlannedRun],
    summaries: Sequence[MethodSummary],
    results: Sequence[RunResult],
    untrained: RunResult,
    argv: Sequence[str],
) -> Iterator[str]:
    yield from origin_lines(study, runs, argv)
    yield f"- Rows: {_rows(untrained)}"
    yield f"- Time: {_time(study, runs, results)}\n"
    yield from _means(summaries, untrained)
    yield f"\n{_HOW_TO_READ}\n"
    if any(summary.differences for summary in summaries):
        yield "## Differences\n"
        yield from _differences(summaries)
        yield f"\n{_HOW_DIFFERENCES_ARE_TAKEN}\n"
        yield f"## What resolves, compared with {study.baseline}\n"
        yield from finding_lines(summaries, study.baseline)
        yield f"\n{HOW_TO_READ}\n"
    for suite in study.suites:
        yield from _suite(study, suite, results, untrained)
    yield "![every metric by method](metrics.png)\n"
    yield "![training curves](curves.png)\n"
    yield "## Methods\n"
    yield from method_lines(study)


def _suite(
    study: StudyConfig, suite: SuiteName, results: Sequence[RunResult], untrained: RunResult
) -> Iterator[str]:
    """The same tables of another set."""
    before = untrained.on(suite)
    summaries = summarise(study, [result.on(suite) for result in results])
    tokens = before.documents["tokens"]
    asked = f"; {len(before.rouge_l)} prompts answered" if before.rouge_l else ""
    yield f"## {SUITES[suite].title}\n"
    yield f"{len(tokens):,} examples, {int(sum(tokens)):,} response tokens{asked}.\n"
    yield from _means(summaries, before)
    yield ""
    if any(summary.differences for summary in summaries):
        yield from _differences(summaries)
        yield ""


def _rows(untrained: RunResult) -> str:
    """What was trained and measured on, in numbers."""
    tokens, data = untrained.documents["tokens"], untrained.data
    text = (
        f"{data['examples']:,} training examples, {data['response_tokens']:,} response tokens; "
        f"held out {len(tokens):,} examples, {int(sum(tokens)):,} response tokens"
    )
    if untrained.rouge_l:
        text += f"; {len(untrained.rouge_l)} prompts answered for ROUGE-L"
    return text


def _time(study: StudyConfig, runs: Sequence[PlannedRun], results: Sequence[RunResult]) -> str:
    training = sum(result.training.get("seconds", 0.0) for result in results)
    evaluation = sum(result.evaluation_seconds for result in results)
    text = (
        f"{duration(training)} of training and {duration(evaluation)} of evaluation for "
        f"{len(results)} of {len(runs)} runs, without compiling"
    )
    if study.budget_hours is not None:
        text += f"; the budget is {study.budget_hours:g} hours"
    finished = {(result.method, result.seed) for result in results}
    missing = [f"{r.method} seed {r.seed}" for r in runs if (r.method, r.seed) not in finished]
    return text + (f"\n- Without a result: {', '.join(missing)}" if missing else "")


def _means(summaries: Sequence[MethodSummary], untrained: RunResult) -> Iterator[str]:
    metrics = [metric for metric in METRICS if metric.name in untrained.metrics]
    yield from head(["method", "seeds", *(m.title for m in metrics), "r at the end", "s a step"])
    best = {metric.name: _best(metric, summaries) for metric in metrics}
    for summary in summaries:
        cells = [_mean_cell(metric, summary, best[metric.name]) for metric in metrics]
        ratio = _average(summary, "keep_ratio", 2)
        seconds = _average(summary, "seconds_per_step", 2)
        yield row([summary.method, str(len(summary.results)), *cells, ratio, seconds])
    before = [metric.shown(untrained.metrics[metric.name]) for metric in metrics]
    yield row([f"*{untrained.method}*", "", *before, "", ""])
    known = {"nll": untrained.metrics["nll_teacher"], "forward_kl": 0.0, "reverse_kl": 0.0}
    known["top1_agreement"] = 1.0
    teacher = [m.shown(known[m.name]) if m.name in known else "" for m in metrics]
    yield row(["*teacher*", "", *teacher, "", ""])


def _best(metric: Metric, summaries: Sequence[MethodSummary]) -> float | None:
    values = [s.means[metric.name].value for s in summaries if metric.name in s.means]
    if len(values) < 2:
        return None
    return min(values) if metric.lower_is_better else max(values)


def _mean_cell(metric: Metric, summary: MethodSummary, best: float | None) -> str:
    mean = summary.means.get(metric.name)
    if mean is None:
        return "–"
    text = metric.shown(mean.value)
    text = f"**{text}**" if mean.value == best else text
    return text if mean.error is None else f"{text} ± {metric.shown(mean.error)}"


def _average(summary: MethodSummary, name: str, digits: int) -> str:
    values = [r.training[name] for r in summary.results.values() if name in r.training]
    return f"{sum(values) / len(values):.{digits}f}" if values else "–"


def _differences(summaries: Sequence[MethodSummary]) -> Iterator[str]:
    compared = [summary for summary in summaries if summary.differences]
    metrics = [m for m in METRICS if any(m.name in s.differences for s in compared)]
    yield from head(["method", "compared with", *(metric.title for metric in metrics)])
    for summary in compared:
        cells = [_difference_cell(metric, summary.differences[metric.name]) for metric in metrics]
        yield row([summary.method, summary.against, *cells])


def _difference_cell(metric: Metric, gap: Difference) -> str:
    low, high = (metric.shown(bound, sign=True) for bound in (gap.low, gap.high))
    verdict = gap.verdict if gap.verdict == "unresolved" else f"**{gap.verdict}**"
    return f"{metric.shown(gap.value, sign=True)} [{low}, {high}] {verdict}"


def _run_rows(results: Sequence[RunResult]) -> Iterator[dict[str, Any]]:
    for result in results:
        yield {
            "method": result.method,
            "seed": result.seed,
            **{m.name: result.metrics.get(m.name) for m in METRICS},
            **result.training,
            "evaluation_seconds": result.evaluation_seconds,
        }


def _suite_rows(
    suites: Sequence[SuiteName], results: Sequence[RunResult]
) -> Iterator[dict[str, Any]]:
    for result in results:
        for suite in suites:
            metrics = result.suites[suite]["metrics"]
            values = {m.name: metrics.get(m.name) for m in METRICS}
            yield {"method": result.method, "seed": result.seed, "suite": suite, **values}


def _method_rows(summaries: Sequence[MethodSummary]) -> Iterator[dict[str, Any]]:
    for summary in summaries:
        values: dict[str, Any] = {"method": summary.method, "seeds": len(summary.results)}
        for name, mean in summary.means.items():
            values |= {name: mean.value, f"{name}_standard_error": mean.error}
        values["compared_with"] = summary.against if summary.differences else None
        for name, gap in summary.differences.items():
            values |= {
                f"{name}_difference": gap.value,
                f"{name}_low": gap.low,
                f"{name}_high": gap.high,
                f"{name}_verdict": gap.verdict,
            }
        yield values
