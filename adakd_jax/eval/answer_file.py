"""A file of answered prompts: appended to block by block, continued after an interruption."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from adakd_jax.config import GenerationConfig
from adakd_jax.data.rows import Row, RowError
from adakd_jax.data.tokenize import Encoder, Prompt
from adakd_jax.eval.answers import Answer, answer_prompts
from adakd_jax.eval.generate import GenerationProgress
from adakd_jax.eval.json_lines import append_records, remove_torn_line, whole_lines
from adakd_jax.eval.progress import shown_generation
from adakd_jax.hf.pretrained import Pretrained

_BATCHES_A_BLOCK = 4  # what an interruption can lose


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
        if skipped[_key(row)]:
            skipped[_key(row)] -= 1
            continue
        try:
            waiting.append((index, row, encoder.prompt(row)))
        except RowError as error:
            left_out[str(error)] += 1
    answers = _answer_blocks(model, waiting, output, settings, seed)
    empty = sum(not answer.text.strip() for answer in answers)
    if empty:
        left_out["the model gave an empty answer"] += empty
    cut = sum(answer.finish == "length" for answer in answers)
    return AnswerReport(len(answers) - empty, present.total(), cut, dict(left_out))


def _answer_blocks(
    model: Pretrained,
    waiting: Sequence[tuple[int, Row, Prompt]],
    output: Path,
    settings: GenerationConfig,
    seed: int,
) -> list[Answer]:
    """Answers in blocks and appends each before the next begins."""
    answers: list[Answer] = []
    size = settings.batch_size * _BATCHES_A_BLOCK
    with shown_generation("answering") as show:
        for start in range(0, len(waiting), size):
            block = waiting[start : start + size]
            tokens = sum(answer.tokens for answer in answers)

            def progress(
                done: GenerationProgress, start: int = start, tokens: int = tokens
            ) -> None:
                show(GenerationProgress(start + done.answered, len(waiting), tokens + done.tokens))

            new = answer_prompts(
                model,
                [prompt.tokens.tolist() for _, _, prompt in block],
                settings,
                seed=seed,
                sample_ids=[index for index, _, _ in block],
                progress=progress,
            )
            answered = [_answered(row, a) for (_, row, _), a in zip(block, new, strict=True)]
            append_records(output, [record for record in answered if record is not None])
            answers += new
    return answers


def _answered(row: Row, answer: Answer) -> dict[str, Any] | None:
    if not answer.text.strip():
        return None
    if row["messages"]:
        last = {"role": "assistant", "content": answer.text}
        return {"messages": [*_asked(row["messages"]), last], "finish": answer.finish}
    asked = {"instruction": row["instruction"], "input": row["input"]}
    return {**asked, "output": answer.text, "finish": answer.finish}


def _asked(messages: Sequence[Any]) -> Sequence[Any]:
    """The conversation without a last assistant turn: what was answered."""
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages


def _key(row: Row | dict[str, Any]) -> str:
    """What was asked."""
    messages = row.get("messages")
    asked = _asked(messages) if messages else [row.get("instruction"), row.get("input")]
    return json.dumps(asked, ensure_ascii=False)


def _present(output: Path, rows: Sequence[Row]) -> Counter[str]:
    """Counts what the file has answered, after removing a torn last line."""
    present: Counter[str] = Counter()
    if not output.exists():
        return present
    for number, line in enumerate(whole_lines(output), start=1):
        try:
            present[_key(json.loads(line))] += 1
        except (ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
            raise ValueError(f"{output}:{number}: not a row of answers: {error}") from error
    foreign = present - Counter(_key(row) for row in rows)
    if foreign:
        raise ValueError(
            f"{output} has {foreign.total()} answers to other prompts, one of them {min(foreign)}; "
            "give another output file, or the prompts that this one was begun with"
        )
    remove_torn_line(output)
    return present
