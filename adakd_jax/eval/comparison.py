"""Two models on the same held-out sets, compared example by example."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from adakd_jax.eval.bootstrap import Gap, paired_gap
from adakd_jax.eval.measured import Measured

LIKELIHOODS = ("nll", "forward_kl", "reverse_kl", "top1_agreement")
SCORED = ("rouge_l", "exact_match", "answer_tokens")


class Compared(NamedTuple):
    """One metric of two models on one set; `gap` is the first minus the second."""

    title: str
    metric: str
    first: float
    second: float
    gap: Gap


def compare(
    first: Mapping[str, Measured], second: Mapping[str, Measured], *, resamples: int = 10_000
) -> list[Compared]:
    """Compares two models on every set that both were measured on, by a paired bootstrap.

    Likelihoods and divergences are resampled by document, and are ratios of sums over tokens;
    between models of different tokenizers they mean nothing and are left out. Scores of answers are
    resampled by question, each the mean over the seeds of its model.

    Args:
      first: what a model got, by name of the set.
      second: what the other got.
      resamples: of the examples.

    Raises:
      ValueError: no set in common, or other rows of it.
    """
    names = [name for name in first if name in second]
    if not names:
        raise ValueError(
            f"no set in common: {', '.join(first) or 'none'} and {', '.join(second) or 'none'}"
        )
    rows: list[Compared] = []
    for name in names:
        rows += _compare_set(name, first[name], second[name], resamples)
    return rows


def _compare_set(name: str, one: Measured, other: Measured, resamples: int) -> list[Compared]:
    if (one.numbers, one.asked) != (other.numbers, other.asked):
        raise ValueError(
            f"{name}: {len(one.numbers)} and {len(other.numbers)} rows were answered, not the same "
            "ones; valid: evaluations with the same rows and --generate_examples"
        )
    rows = []
    weights = np.asarray(one.documents["tokens"])
    same_tokens = one.documents["tokens"] == other.documents["tokens"]
    for metric in LIKELIHOODS if same_tokens else ():
        if metric in one.documents and metric in other.documents:
            pair = one.documents[metric], other.documents[metric]
            gap = paired_gap(*pair, weights, resamples=resamples)
            rows.append(_row(metric, one, other, gap))
    for metric in SCORED:
        if metric in one.scores and metric in other.scores:
            means = [np.mean(list(each.scores[metric].values()), axis=0) for each in (one, other)]
            gap = paired_gap(*means, resamples=resamples)
            rows.append(_row(metric, one, other, gap))
    return rows


def _row(metric: str, one: Measured, other: Measured, gap: Gap) -> Compared:
    return Compared(one.title, metric, one.metrics[metric], other.metrics[metric], gap)
