"""A file of answered prompts: appended to block by block, continued after an interruption."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from adakd_jax.config import GenerationConfig
from adakd_jax.config.data import Columns
from adakd_jax.data.rows import Row, RowError
from adakd_jax.data.tokenize import Encoder, Prompt
from adakd_jax.eval.answer_blocks import answer_blocks
from adakd_jax.eval.answers import Answer
from adakd_jax.eval.asked import asked_key, asked_turns
from adakd_jax.eval.json_lines import append_records, remove_torn_line, whole_lines
from adakd_jax.hf.pretrained import Pretrained


class AnswerReport(NamedTuple):
    """How many rows were answered now, were answered before, and were left out, by reason."""

    written: int
    present: int
    cut: int
    left_out: dict[str, int]

    def summary(self) -> str:
        """One line, and one for each reason to leave rows out."""
        line = f"{self.written} answers written, {self.cut} of them cut at their longest"
        if self.present:
            line += f"; {self.present} were there already"
        return "\n".join(
            [line, *(f"left out: {n} rows: {why}" for why, n in self.left_out.items())]
        )


def answer_file(
    model: Pretrained,
    encoder: Encoder,
    rows: Sequence[Row],
    output: Path,
    settings: GenerationConfig,
    *,
    seed: int = 0,
) -> AnswerReport:
    """Answers rows into a JSONL file, skipping those that it has.

    A row of the file has the instruction and input, or the messages, that were answered; the
    answer; and under `finish` what ended it: 'eos' or 'length'. An empty answer is left out. A line
    that an interruption tore is removed first. A row's sample depends on its place in `rows`, not
    on what was there before.

    Args:
      model: who answers.
      encoder: makes prompts of rows.
      rows: what to answer.
      output: local file; its folder is made.
      settings: how to sample.
      seed: of sampling.

    Returns:
      What was done.

    Raises:
      ValueError: the file holds something else than answers to these rows.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    present = _present(output, rows)
    left_out: Counter[str] = Counter()
    waiting: list[tuple[int, Row, Prompt]] = []
    skipped = Counter(present)
    for index, row in enumerate(rows):
        if skipped[asked_key(row)]:
            skipped[asked_key(row)] -= 1
            continue
        try:
            waiting.append((index, row, encoder.prompt(row)))
        except RowError as error:
            left_out[str(error)] += 1
    answers = _write_answers(model, waiting, output, settings, seed)
    empty = sum(not answer.text.strip() for answer in answers)
    if empty:
        left_out["the model gave an empty answer"] += empty
    cut = sum(answer.finish == "length" for answer in answers)
    return AnswerReport(len(answers) - empty, present.total(), cut, dict(left_out))


def _write_answers(
    model: Pretrained,
    waiting: Sequence[tuple[int, Row, Prompt]],
    output: Path,
    settings: GenerationConfig,
    seed: int,
) -> list[Answer]:
    """Answers in blocks and appends each before the next begins."""
    answers: list[Answer] = []
    blocks = answer_blocks(
        model,
        [prompt.tokens.tolist() for _, _, prompt in waiting],
        settings,
        sample_ids=[index for index, _, _ in waiting],
        seed=seed,
    )
    for start, new in blocks:
        answered = [_answered(row, a) for (_, row, _), a in zip(waiting[start:], new, strict=False)]
        append_records(output, [record for record in answered if record is not None])
        answers += new
    return answers


def _answered(row: Row, answer: Answer) -> dict[str, Any] | None:
    if not answer.text.strip():
        return None
    return answered_record(row, answer)


def answered_record(row: Row, answer: Answer) -> dict[str, Any]:
    """A row of an answer file."""
    if row["messages"]:
        last = {"role": "assistant", "content": answer.text}
        told = {"tools": row["tools"], Columns().template_kwargs: row["template_kwargs"]}
        told = {name: value for name, value in told.items() if value}
        return {"messages": [*asked_turns(row["messages"]), last], **told, "finish": answer.finish}
    asked = {"instruction": row["instruction"], "input": row["input"]}
    return {**asked, "output": answer.text, "finish": answer.finish}


def _present(output: Path, rows: Sequence[Row]) -> Counter[str]:
    """Counts what the file has answered, after removing a torn last line."""
    present: Counter[str] = Counter()
    if not output.exists():
        return present
    for number, line in enumerate(whole_lines(output), start=1):
        try:
            present[asked_key(json.loads(line))] += 1
        except (ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
            raise ValueError(f"{output}:{number}: not a row of answers: {error}") from error
    foreign = present - Counter(asked_key(row) for row in rows)
    if foreign:
        raise ValueError(
            f"{output} has {foreign.total()} answers to other prompts, one of them {min(foreign)}; "
            "give another output file, or the prompts that this one was begun with"
        )
    remove_torn_line(output)
    return present
