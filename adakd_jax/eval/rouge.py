"""ROUGE-L of generated answers, with a bootstrap interval of the mean."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

from adakd_jax.eval.bootstrap import bootstrap_interval


@dataclasses.dataclass(frozen=True)
class RougeL:
    """ROUGE-L F1 in [0, 1]: the mean, the bounds of its 95% interval, and every example's score."""

    mean: float
    low: float
    high: float
    scores: tuple[float, ...]


def rouge_l(
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> RougeL:
    """ROUGE-L F1 on Porter stems: the best over each answer's references, averaged over answers.

    Args:
      answers: one generated text per example.
      references: the accepted texts of each example, at least one.
      resamples: bootstrap resamples of the examples for the interval.
      seed: of the resampling.

    Raises:
      ValueError: nothing to score, the lengths differ, or an example has no reference.

    References: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries".
    """
    if not answers or len(answers) != len(references):
        raise ValueError(
            f"rouge_l needs as many answers as reference lists, at least one; "
            f"got {len(answers)} and {len(references)}"
        )
    missing = [index for index, texts in enumerate(references) if not texts]
    if missing:
        raise ValueError(f"rouge_l: example {missing[0]} has no reference")
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    scores = tuple(
        float(scorer.score_multi(list(texts), answer)["rougeL"].fmeasure)
        for answer, texts in zip(answers, references, strict=True)
    )
    low, high = bootstrap_interval(scores, resamples=resamples, seed=seed)
    return RougeL(float(np.mean(scores)), low, high, scores)
