"""Evaluations side by side: as tables for people, and for a model card.

An evaluation is what `Evaluation.to_dict` gives, so that one read back from a file will do.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from adakd_jax.hf.card import MetricTable

_ROWS = {
    "nll": "NLL",
    "nll_teacher": "NLL of the teacher",
    "forward_kl": "forward KL",
    "reverse_kl": "reverse KL",
    "top1_agreement": "top-1 agreement",
    "rouge_l": "ROUGE-L",
}
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
        table.add_column(escape(name), justify="right")
    for key, label in _ROWS.items():
        if any(key in result for result in results.values()):
            table.add_row(label, *(_cell(key, result) for result in results.values()))
    return table


def card_metrics(results: Mapping[str, Mapping[str, Any]]) -> MetricTable:
    """The same numbers for a model card."""
    rows = {
        label: [result.get(key) for result in results.values()]
        for key, label in _ROWS.items()
        if any(key in result for result in results.values())
    }
    return MetricTable(tuple(results), rows)


def answers_table(prompt: str, answers: Mapping[str, str]) -> Table:
    """Answers to one prompt side by side.

    Args:
      prompt: what was asked.
      answers: column title → answer, e.g. of the teacher, and of the student before and after.
    """
    table = Table(title=escape(_short(prompt)), title_justify="left", expand=True)
    for name in answers:
        table.add_column(escape(name), ratio=1, overflow="fold")
    table.add_row(*(escape(_short(answer)) for answer in answers.values()))
    return table


def _cell(key: str, result: Mapping[str, Any]) -> str:
    if key not in result:
        return "–"
    if key == "top1_agreement":
        return f"{result[key]:.1%}"
    if key == "rouge_l":
        low, high = result["rouge_l_low"], result["rouge_l_high"]
        return f"{100 * result[key]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{result[key]:.4f}"


def _caption(results: Mapping[str, Mapping[str, Any]]) -> str:
    tokens = _counts(result["tokens"] for result in results.values())
    answers = [len(result["answers"]) for result in results.values() if result.get("answers")]
    caption = f"nats per token over {tokens} response tokens"
    if answers:
        caption += f"; ROUGE-L × 100 of {_counts(answers)} answers, 95% bootstrap interval"
    return caption


def _counts(counts: Iterable[int]) -> str:
    return " / ".join(f"{count:,}" for count in sorted(set(counts)))


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
