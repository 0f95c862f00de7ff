"""Evaluations side by side: as tables for people, and for a model card.

An evaluation is what `Evaluation.to_dict` gives, so that one read back from a file will do.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from adakd_jax.eval.comparison import Compared
from adakd_jax.eval.rouge import ANY_SCRIPT
from adakd_jax.hf.card import MetricTable

_ROWS = {
    "nll": "NLL",
    "nll_teacher": "NLL of the teacher",
    "forward_kl": "forward KL",
    "reverse_kl": "reverse KL",
    "top1_agreement": "top-1 agreement",
    "calibration_error": "calibration error",
    "rouge_l": "ROUGE-L",
    "exact_match": "exact match",
    "answer_tokens": "answer tokens",
    "cut": "cut at the longest",
}
_SHARES = ("top1_agreement", "calibration_error", "exact_match", "cut")
_SHOWN_CHARACTERS = 600


def metrics_table(results: Mapping[str, Mapping[str, Any]], title: str | None = None) -> Table:
    """One column per evaluation, one row per metric that any of them has.

    Args:
      results: column title → evaluation, e.g. before and after training; at least one.
      title: of the table.
    """
    table = Table(title=title, title_justify="left", caption=_caption(results))
    table.add_column("")
    for name in results:
        table.add_column(name, justify="right", overflow="fold")
    for label, cells in metric_cells(results).items():
        table.add_row(label, *cells)
    return table


def metric_cells(results: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """One label and one cell per evaluation for every metric that any of them has."""
    return {
        _label(key, results): [_cell(key, result) for result in results.values()]
        for key in _ROWS
        if any(key in result for result in results.values())
    }


def card_metrics(results: Mapping[str, Mapping[str, Any]]) -> MetricTable:
    """The same numbers for a model card."""
    rows = {
        _label(key, results): [result.get(key) for result in results.values()]
        for key in _ROWS
        if any(key in result for result in results.values())
    }
    return MetricTable(tuple(results), rows)


def compared_table(compared: Iterable[Compared]) -> Table:
    """Differences between two models, one a row."""
    table = Table(
        title="first model minus second",
        title_justify="left",
        caption="95% interval and two-sided p of a paired bootstrap over examples",
    )
    table.add_column("set", overflow="fold")
    table.add_column("metric")
    for name in ("first", "second", "difference", "95% interval", "p"):
        table.add_column(name, justify="right")
    for each in compared:
        table.add_row(*compared_cells(each))
    return table


def compared_cells(each: Compared) -> list[str]:
    """One difference: set, metric, both values, the difference, its interval and p."""
    gap = each.gap
    return [
        each.title,
        each.metric,
        f"{each.first:.4f}",
        f"{each.second:.4f}",
        f"{gap.value:+.4f}",
        f"[{gap.low:+.4f}, {gap.high:+.4f}]",
        f"{gap.p:.4f}",
    ]


def answers_table(prompt: str, answers: Mapping[str, str]) -> Table:
    """Answers to one prompt side by side.

    Args:
      prompt: what was asked.
      answers: column title → answer, e.g. of the teacher, and of the student before and after.
    """
    table = Table(title=_short(prompt), title_justify="left", expand=True)
    for name in answers:
        table.add_column(name, ratio=1, overflow="fold")
    table.add_row(*(_short(answer) or "(nothing)" for answer in answers.values()))
    return table


def _label(key: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """The metric's name, and by which words, where these are not those of English."""
    if key != "rouge_l" or not any(ANY_SCRIPT in result for result in results.values()):
        return _ROWS[key]
    return f"{_ROWS[key]}, words of any script"


def _cell(key: str, result: Mapping[str, Any]) -> str:
    if key not in result:
        return "–"
    value, deviation = result[key], result.get(f"{key}_sd")
    if key == "rouge_l":
        low, high = result["rouge_l_low"], result["rouge_l_high"]
        spread = "" if deviation is None else f" ± {100 * deviation:.2f}"
        return f"{100 * value:.1f}{spread} [{100 * low:.1f}, {100 * high:.1f}]"
    if key in _SHARES:
        return f"{value:.1%}" + ("" if deviation is None else f" ± {deviation:.1%}")
    digits = 1 if key == "answer_tokens" else 4
    return f"{value:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def _caption(results: Mapping[str, Mapping[str, Any]]) -> str:
    tokens = _counts(result["tokens"] for result in results.values())
    answers = [len(result["answers"]) for result in results.values() if result.get("answers")]
    caption = f"nats per token over {tokens} response tokens"
    if answers:
        caption += f"; ROUGE-L × 100 of {_counts(answers)} answers, 95% bootstrap interval"
    others = [result[ANY_SCRIPT] for result in results.values() if ANY_SCRIPT in result]
    if others:
        caption += f"; by words of any script where references are not Latin, {_counts(others)}"
    if any(f"{key}_sd" in result for key in _ROWS for result in results.values()):
        caption += "; mean ± standard deviation over seeds"
    return caption


def _counts(counts: Iterable[int]) -> str:
    return " / ".join(f"{count:,}" for count in sorted(set(counts)))


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
