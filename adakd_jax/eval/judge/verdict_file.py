"""Replies of the judge, kept by content: a question is paid for once."""

import json
from collections.abc import Sequence
from pathlib import Path

from adakd_jax.eval.json_lines import append_records, remove_torn_line, whole_lines
from adakd_jax.eval.judge.client import Reply
from adakd_jax.eval.judge.question import Question


class VerdictFile:
    """A JSONL file of replies by the key of their question: model, server, messages, settings.

    It holds no request and nothing else of the connection.
    """

    def __init__(self, file: Path):
        """Opens a file, or begins one.

        Raises:
          ValueError: it holds something else.
        """
        self._file = file
        self._replies: dict[str, Reply] = {}
        for place, line in enumerate(whole_lines(file), start=1):
            try:
                record = json.loads(line)
                key = record.pop("key")
                self._replies[key] = Reply(**record)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(f"{file}:{place}: not a reply of a judge: {error!r}") from error
        if file.exists():
            remove_torn_line(file)

    def replies(self, questions: Sequence[Question]) -> list[Reply] | None:
        """What was replied to each, or None if one of them has no reply."""
        found = [self._replies.get(question.key) for question in questions]
        replies = [reply for reply in found if reply is not None]
        return replies if len(replies) == len(found) else None

    def keep(self, question: Question, reply: Reply) -> None:
        """Adds a reply; it is on disk when this returns."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        append_records(self._file, [{"key": question.key, **reply._asdict()}])
        self._replies[question.key] = reply

    def missing(self, questions: Sequence[Question]) -> list[Question]:
        """Those that were not asked yet, each content once."""
        unique = {question.key: question for question in questions}
        return [question for key, question in unique.items() if key not in self._replies]
