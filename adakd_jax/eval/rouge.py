"""ROUGE-L of generated answers, with a bootstrap interval of the mean."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

from adakd_jax.eval.bootstrap import bootstrap_interval
from adakd_jax.eval.words import AnyScript, needs_any_script

# The metric that counts the examples that were compared by words of any script, where some were.
ANY_SCRIPT = "rouge_l_any_script"


@dataclasses.dataclass(frozen=True)
class RougeL:
    """ROUGE-L F1 in [0, 1]: the mean, the bounds of its 95% interval, and every example's score.

    `any_script` counts the examples that were compared by words of any script.
    """

    mean: float
    low: float
    high: float
    scores: tuple[float, ...]
    any_script: int = 0


def rouge_l(
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> RougeL:
    """ROUGE-L F1 on Porter stems: the best over each answer's references, averaged over answers.

    Words are those of `rouge_score`, which knows a-z and 0-9. Where an example's references are in
    another script, they and the answer are compared by the words of `AnyScript`. The answer has no
    say in it, so all models are compared alike.

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
    usual = RougeScorer(["rougeL"], use_stemmer=True)
    of_any_script = RougeScorer(["rougeL"], tokenizer=AnyScript())
    others = [needs_any_script(texts) for texts in references]
    scores = tuple(
        float((of_any_script if other else usual).score_multi(texts, answer)["rougeL"].fmeasure)
        for answer, texts, other in zip(answers, references, others, strict=True)
    )
    low, high = bootstrap_interval(scores, resamples=resamples, seed=seed)
    return RougeL(float(np.mean(scores)), low, high, scores, sum(others))
