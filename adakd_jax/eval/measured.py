"""What one model got on one held-out set: likelihood once, answers once per seed."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adakd_jax.config import GenerationConfig
from adakd_jax.console import Console
from adakd_jax.data.cache import content_key
from adakd_jax.eval.answers import Answer
from adakd_jax.eval.asked import asked_key
from adakd_jax.eval.bootstrap import bootstrap_interval
from adakd_jax.eval.exact_match import exact_match
from adakd_jax.eval.likelihood import DocumentSums
from adakd_jax.eval.rouge import ANY_SCRIPT, rouge_l
from adakd_jax.eval.sampled import sampled
from adakd_jax.eval.suite import HeldOut, Question, evaluate
from adakd_jax.eval.words import needs_any_script
from adakd_jax.hf.pretrained import Pretrained

_SUMS = ("nll", "nll_teacher", "forward_kl", "reverse_kl", "top1_agreement")
SCORES = ("rouge_l", "exact_match", "answer_tokens", "cut")


@dataclasses.dataclass(frozen=True)
class Measured:
    """One model on one set, as JSON values.

    Attributes:
      title: of the set.
      asked: names the questions by their content.
      metrics: those of `Likelihood`; of each of `rouge_l`, `exact_match` (both in [0, 1]),
        `answer_tokens` and `cut` (the share that ended at their longest) the mean over seeds and,
        of more than one seed, the standard deviation over them (n − 1) under NAME_sd; the bounds
        of ROUGE-L's 95% interval over examples under rouge_l_low and rouge_l_high; under
        rouge_l_any_script, how many questions were compared by words of any script, if some were.
      documents: "tokens" and sums over them by metric, one number a held-out document.
      numbers: which rows were answered.
      scores: by name of a score and seed, one number an answered row.
      reliability: confidence against accuracy, see `Calibration.rows`.
      answers: those of the first seed in words, with question and references.
    """

    title: str
    asked: str
    metrics: dict[str, int | float]
    documents: dict[str, list[float]]
    numbers: list[int]
    scores: dict[str, dict[str, list[float]]]
    reliability: list[dict[str, Any]]
    answers: list[dict[str, Any]]

    def shown(self) -> dict[str, Any]:
        """Metrics and answers in the form that tables take."""
        return {**self.metrics, "answers": self.answers}


class _Scored(NamedTuple):
    """The scores of one seed's answers, one number an answer, in the order of `SCORES`."""

    rouge_l: list[float]
    exact_match: list[float]
    answer_tokens: list[float]
    cut: list[float]


def measure(
    model: Pretrained,
    held_out: HeldOut,
    generation: GenerationConfig,
    seeds: Sequence[int],
    *,
    title: str,
    teacher: Pretrained | None = None,
    folder: Path | None = None,
    console: Console | None = None,
) -> Measured:
    """Measures a model on a held-out set.

    Args:
      model: the model to measure.
      held_out: from `hold_ready`.
      generation: how answers are sampled; at temperature 0 all seeds would answer alike, so only
        the first is used.
      seeds: of sampling, at least one.
      title: of the set.
      teacher: what to compare with, or None.
      folder: where answers are kept and found again, claimed by `claim_folder`; None: nowhere.
      console: where progress is shown; by default stderr.
    """
    documents = evaluate(model, held_out, generation, teacher=teacher, answer=False).documents
    assert documents is not None  # `evaluate` always gives them
    questions = held_out.questions
    used = seeds if generation.temperature > 0 else seeds[:1]
    by_seed: dict[str, _Scored] = {}
    answers: list[dict[str, Any]] = []
    for seed in used if questions else ():
        file = None if folder is None else folder / f"seed{seed}.jsonl"
        given = sampled(model, questions, generation, seed, file=file, console=console)
        by_seed[str(seed)] = _scored(questions, given)
        answers = answers or _in_words(questions, given, by_seed[str(seed)])
    scores = {
        name: {seed: getattr(scored, name) for seed, scored in by_seed.items()} for name in SCORES
    }
    metrics: dict[str, int | float] = documents.likelihood().to_dict()
    if by_seed:
        metrics |= _over_seeds(scores)
        if others := sum(needs_any_script(question.references) for question in questions):
            metrics[ANY_SCRIPT] = others
    return Measured(
        title=title,
        asked=content_key(asked=[asked_key(question.row) for question in questions]),
        metrics=metrics,
        documents=_by_document(documents),
        numbers=[question.number for question in questions],
        scores=scores if by_seed else {},
        reliability=documents.calibration.rows(),
        answers=answers,
    )


def _scored(questions: Sequence[Question], answers: Sequence[Answer]) -> _Scored:
    references = [question.references for question in questions]
    texts = [answer.text for answer in answers]
    return _Scored(
        rouge_l=list(rouge_l(texts, references).scores),
        exact_match=[exact_match(*pair) for pair in zip(texts, references, strict=True)],
        answer_tokens=[float(answer.tokens) for answer in answers],
        cut=[float(answer.finish == "length") for answer in answers],
    )


def _over_seeds(scores: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    metrics = {}
    for name, by_seed in scores.items():
        means = [float(np.mean(values)) for values in by_seed.values()]
        metrics[name] = float(np.mean(means))
        if len(means) > 1:
            metrics[f"{name}_sd"] = float(np.std(means, ddof=1))
    of_examples = np.mean(list(scores["rouge_l"].values()), axis=0)
    metrics["rouge_l_low"], metrics["rouge_l_high"] = bootstrap_interval(of_examples)
    return metrics


def _by_document(documents: DocumentSums) -> dict[str, list[float]]:
    names = _SUMS if documents.has_teacher else _SUMS[:1]
    sums = dict(zip(names, documents.sums.T.tolist(), strict=False))
    return {"tokens": documents.tokens.astype(float).tolist(), **sums}


def _in_words(
    questions: Sequence[Question], answers: Sequence[Answer], scored: _Scored
) -> list[dict[str, Any]]:
    return [
        {
            "prompt": question.text,
            "references": list(question.references),
            "answer": answer.text,
            "tokens": answer.tokens,
            "finish": answer.finish,
            "rouge_l": rouge,
            "exact_match": match,
        }
        for question, answer, rouge, match in zip(
            questions, answers, scored.rouge_l, scored.exact_match, strict=True
        )
    ]
