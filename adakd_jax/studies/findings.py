"""What a study resolves and what it does not, metric by metric, in words."""

from collections.abc import Iterator, Sequence

import numpy as np

from adakd_jax.studies.comparison import Difference, MethodSummary
from adakd_jax.studies.metrics import METRICS, Metric

_VERDICTS = ("better", "worse", "unresolved")
HOW_TO_READ = """\
± is the standard error over seeds of the difference between runs of one seed, so that what a seed \
does to both methods alike is no part of it. A method with one seed is never resolved."""


def finding_lines(summaries: Sequence[MethodSummary], baseline: str) -> Iterator[str]:
    """Markdown: for each metric, which methods are better or worse than what they are compared
    with, the largest difference first, and which are not resolved.

    Args:
        summaries: from `summarise`.
        baseline: what methods are compared with where nothing else is said.
    """
    for metric in METRICS:
        found = [s for s in summaries if metric.name in s.differences]
        if not found:
            continue
        found.sort(key=lambda s: -abs(s.differences[metric.name].value))
        yield f"- **{metric.title}**, {'lower' if metric.lower_is_better else 'higher'} is better"
        for verdict in _VERDICTS:
            of_verdict = [s for s in found if s.differences[metric.name].verdict == verdict]
            if of_verdict:
                told = ", ".join(_told(metric, each, baseline) for each in of_verdict)
                yield f"    - {verdict}: {told}"


def _told(metric: Metric, summary: MethodSummary, baseline: str) -> str:
    """A method and by how much it differs."""
    than = "" if summary.against == baseline else f" (than {summary.against})"
    gap = summary.differences[metric.name]
    text = f"{summary.method}{than} {metric.shown(gap.value, sign=True)}"
    error = seed_error(gap)
    return f"{text}, one seed" if error is None else f"{text} ± {metric.shown(error)}"


def seed_error(gap: Difference) -> float | None:
    """Standard error over seeds of a paired difference; None of one seed."""
    if len(gap.by_seed) < 2:
        return None
    return float(np.std(gap.by_seed, ddof=1) / np.sqrt(len(gap.by_seed)))
