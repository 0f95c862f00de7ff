"""Answers of teacher and students to the same held-out questions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from adakd_jax.reports.gather import RunRecord


class ShownAnswer(NamedTuple):
    """Who answered, what, and how near to the reference: ROUGE-L × 100, or ""."""

    who: str
    text: str
    rouge_l: str = ""
    cut: bool = False


class Exchange(NamedTuple):
    """A question and its answers, the reference first."""

    prompt: str
    answers: list[ShownAnswer]


def exchanges(runs: Sequence[RunRecord]) -> list[Exchange]:
    """Every held-out question that a run has answered, in the order of the rows.

    Runs with the same rows meet at the same questions.
    """
    by_prompt: dict[str, list[ShownAnswer]] = {}
    for run in runs:
        asked = _asked(run)
        for index, (prompt, references) in enumerate(asked.items()):
            shown = by_prompt.setdefault(prompt, [])
            if not any(answer.who == "reference" for answer in shown):
                shown.append(ShownAnswer("reference", references[0]))
            shown.extend(_of_run(run, prompt, index, several=len(runs) > 1, known=shown))
    return [Exchange(prompt, answers) for prompt, answers in by_prompt.items()]


def _asked(run: RunRecord) -> dict[str, list[str]]:
    """Prompts and references of a run."""
    return {
        answer["prompt"]: answer["references"]
        for stage in ("after", "before")
        for answer in run.evaluations.get(stage, {}).get("answers", [])
    }


def _of_run(
    run: RunRecord, prompt: str, index: int, *, several: bool, known: Sequence[ShownAnswer]
) -> Iterator[ShownAnswer]:
    """The answers of a run to its question number `index`; those that others gave as well once."""
    prefix = f"{run.name}, " if several else ""
    seen = {(answer.who, answer.text) for answer in known}
    # What the teacher wrote stands in the order of the questions, without them.
    of_teacher = run.evaluations.get("teacher", {}).get("answers", [])
    if index < len(of_teacher):
        answer = ShownAnswer("teacher", of_teacher[index]["answer"])
        if (answer.who, answer.text) not in seen:
            yield answer
    for stage in ("before", "after"):
        for answer in run.evaluations.get(stage, {}).get("answers", []):
            if answer["prompt"] == prompt:
                yield _shown(f"{prefix}student {stage}", answer)
                break


def _shown(who: str, answer: Mapping[str, Any]) -> ShownAnswer:
    score = answer.get("rouge_l")
    rouge_l = "" if score is None else f"{100 * score:.0f}"
    return ShownAnswer(who, answer["answer"], rouge_l, answer.get("finish") == "length")
