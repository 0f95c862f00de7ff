"""From kept replies to the result of a judgement, and to the file that holds it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from adakd_jax.eval.judge.client import Reply
from adakd_jax.eval.judge.outcome import Judged, Verdicts, judged
from adakd_jax.eval.judge.pairs import Pair
from adakd_jax.eval.judge.question import Question, read_verdict
from adakd_jax.eval.judge.verdict_file import VerdictFile
from adakd_jax.eval.whole_file import write_whole


class Result(NamedTuple):
    """What came of all pairs.

    Attributes:
      judged: over the pairs that have a verdict.
      without_reply: pairs left out of it, because a question about them has no reply.
      pairs: each pair's request, outcome (None: left out), verdicts and the judge's words.
      prompt_tokens, completion_tokens: as the server counted them, over the replies used.
      cut: replies that ended at their longest.
    """

    judged: Judged
    without_reply: int
    pairs: list[dict[str, Any]]
    prompt_tokens: int
    completion_tokens: int
    cut: int


def collect(
    pairs: Sequence[Pair],
    questions: Mapping[int, tuple[Question, Question]],
    file: VerdictFile,
) -> Result:
    """Reads the verdicts of every pair.

    Args:
      pairs: what was compared.
      questions: both orders of each pair that was asked, by its place; the others are identical.
      file: the replies.

    Raises:
      ValueError: no pair has its replies.
    """
    replies = [
        [] if number not in questions else file.replies(questions[number])
        for number in range(len(pairs))
    ]
    verdicts = [None if both is None else _verdicts(both) for both in replies]
    found = [each for each in verdicts if each is not None]
    if not found:
        raise ValueError("no pair has replies in both orders, so there is no result")
    used = [reply for both in replies for reply in both or ()]
    return Result(
        judged=judged(found),
        without_reply=len(pairs) - len(found),
        pairs=[_described(*each) for each in zip(pairs, verdicts, replies, strict=True)],
        prompt_tokens=sum(each.prompt_tokens for each in used),
        completion_tokens=sum(each.completion_tokens for each in used),
        cut=sum(each.cut for each in used),
    )


def _verdicts(replies: Sequence[Reply]) -> Verdicts:
    if not replies:
        return Verdicts(None, None, identical=True)
    straight, swapped = replies
    return Verdicts(read_verdict(straight.text), read_verdict(swapped.text))


def _described(
    pair: Pair, verdicts: Verdicts | None, replies: Sequence[Reply] | None
) -> dict[str, Any]:
    if verdicts is None:
        return {"request": pair.request, "outcome": None}
    words = [each.text for each in replies or ()]
    found = {"outcome": verdicts.outcome, **verdicts._asdict()}
    return {"request": pair.request, **found, "replies": words}


def write_result(file: Path, settings: Mapping[str, Any], result: Result) -> None:
    """Writes settings and result as JSON, at once."""
    content = {
        "settings": dict(settings),
        "result": {**result.judged.to_dict(), "without_reply": result.without_reply},
        "tokens": {"in": result.prompt_tokens, "out": result.completion_tokens},
        "pairs": result.pairs,
    }
    write_whole(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
