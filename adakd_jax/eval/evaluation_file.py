"""What an evaluation leaves in its folder: all numbers as JSON, the tables as Markdown."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adakd_jax.eval.comparison import Compared
from adakd_jax.eval.measured import Measured
from adakd_jax.eval.table import compared_cells, metric_cells
from adakd_jax.eval.whole_file import write_whole
from adakd_jax.studies.tables import head, row
from adakd_jax.user_path import local_path

NUMBERS, TABLES = "evaluation.json", "evaluation.md"

Results = Mapping[str, Mapping[str, Measured]]


def write_evaluation(
    folder: Path, settings: Mapping[str, Any], results: Results, compared: Sequence[Compared]
) -> list[Path]:
    """Writes both files, each at once.

    Args:
      folder: where to; made if absent.
      settings: of the command, as JSON values.
      results: what was measured, by model and set.
      compared: the first model against the second, if there are two.

    Returns:
      The files.
    """
    numbers = {
        "settings": dict(settings),
        "models": {
            model: {name: dataclasses.asdict(measured) for name, measured in sets.items()}
            for model, sets in results.items()
        },
        "compared": [{**each._asdict(), "gap": each.gap._asdict()} for each in compared],
    }
    texts = {
        folder / NUMBERS: json.dumps(numbers, indent=1, ensure_ascii=False),
        folder / TABLES: "\n".join(_markdown(settings, results, compared)),
    }
    for file, text in texts.items():
        write_whole(file, text + "\n")
    return list(texts)


def read_evaluation(path: str) -> tuple[str, dict[str, Measured]]:
    """The first model of an evaluation, and what it got on each set.

    Args:
      path: the folder of an evaluation, or its JSON file.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is something else.
    """
    file = local_path(path, "evaluation")
    file = file / NUMBERS if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(
            f"no evaluation at {path}; valid: a folder that adakd_jax.evaluate --output wrote"
        )
    try:
        models = json.loads(file.read_text(encoding="utf-8"))["models"]
        name, sets = next(iter(models.items()))
        return name, {title: Measured(**values) for title, values in sets.items()}
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration) as error:
        raise ValueError(f"{file} is not an evaluation: {error!r}") from error


def _markdown(
    settings: Mapping[str, Any], results: Results, compared: Sequence[Compared]
) -> Iterator[str]:
    yield "# Evaluation"
    yield ""
    yield f"`{json.dumps(settings, ensure_ascii=False)}`"
    for name in _set_names(results):
        measured = {model: sets[name] for model, sets in results.items() if name in sets}
        title = next(iter(measured.values())).title
        yield from ("", f"## {title}", "")
        yield from head(["", *measured])
        cells = metric_cells({model: each.metrics for model, each in measured.items()})
        yield from (row([label, *values]) for label, values in cells.items())
    yield from _mean_rouge(results)
    if compared:
        yield from ("", "## First model minus second", "")
        yield from head(["set", "metric", "first", "second", "difference", "95% interval", "p"])
        yield from (row(compared_cells(each)) for each in compared)
    yield from _reliability(results)


def _set_names(results: Results) -> list[str]:
    return list(dict.fromkeys(name for sets in results.values() for name in sets))


def _mean_rouge(results: Results) -> Iterator[str]:
    """The average over sets that the papers print, where there is more than one set."""
    means = {}
    for model, sets in results.items():
        values = [each.metrics["rouge_l"] for each in sets.values() if "rouge_l" in each.metrics]
        if len(values) > 1:
            means[model] = f"{100 * sum(values) / len(values):.2f} ({len(values)} sets)"
    if means:
        yield from ("", "## ROUGE-L × 100, unweighted mean of sets", "")
        yield from head(["", *means])
        yield row(["mean", *means.values()])


def _reliability(results: Results) -> Iterator[str]:
    yield from ("", "## Reliability of next-token confidence", "")
    yield from head(["set", "model", "confidence", "tokens", "mean confidence", "accuracy"])
    for model, sets in results.items():
        for measured in sets.values():
            for each in measured.reliability:
                yield row(
                    [
                        measured.title,
                        model,
                        f"({each['from']:.3f}, {each['to']:.3f}]",
                        f"{each['tokens']:,}",
                        f"{each['confidence']:.3f}",
                        f"{each['accuracy']:.3f}",
                    ]
                )
