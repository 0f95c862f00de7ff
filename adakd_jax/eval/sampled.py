"""A model's answers to a held-out set, sampled once per seed and kept."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from adakd_jax.config import GenerationConfig
from adakd_jax.console import Console
from adakd_jax.data.chat_render import ChatRenderer
from adakd_jax.data.examples import tokenizer_digest
from adakd_jax.eval.answer_blocks import answer_blocks
from adakd_jax.eval.answer_file import answered_record
from adakd_jax.eval.answers import Answer
from adakd_jax.eval.asked import asked_key
from adakd_jax.eval.json_lines import append_records, remove_torn_line, whole_lines
from adakd_jax.eval.model import PromptSettings, weights_digest
from adakd_jax.eval.suite import Question
from adakd_jax.eval.whole_file import write_whole
from adakd_jax.hf.pretrained import Pretrained

SETTINGS = "settings.json"


def sampled(
    model: Pretrained,
    questions: Sequence[Question],
    generation: GenerationConfig,
    seed: int,
    *,
    file: Path | None = None,
    console: Console | None = None,
) -> list[Answer]:
    """Answers questions, or reads those answers that the file has already.

    Args:
      model: who answers.
      questions: what to answer; a question's sample depends on its number and the seed.
      generation: how to sample.
      seed: of sampling.
      file: JSONL to append to, block by block: `number`, what was asked, the answer, its `tokens`
        and what ended it. A line that an interruption tore is removed. None: nothing is kept.
      console: where progress is shown; by default stderr.

    Raises:
      ValueError: the file holds something else than answers to these questions.
    """
    answers = {} if file is None else _present(file, questions)
    # Longest first over all blocks: batches of similar length, and few shapes to compile.
    waiting = sorted(
        (question for question in questions if question.number not in answers),
        key=lambda question: -len(question.tokens),
    )
    blocks = answer_blocks(
        model,
        [question.tokens for question in waiting],
        generation,
        sample_ids=[question.number for question in waiting],
        seed=seed,
        what=f"answering, seed {seed}",
        console=console,
    )
    for start, new in blocks:
        block = waiting[start : start + len(new)]
        if file is not None:
            append_records(file, map(_record, block, new))
        answers.update(zip((question.number for question in block), new, strict=True))
    return [answers[question.number] for question in questions]


def claim_folder(
    folder: Path, model: Pretrained, prompts: PromptSettings, generation: GenerationConfig
) -> None:
    """Makes a folder of answers, or checks that its answers are of the same model and settings.

    Raises:
      ValueError: they are not; lists what differs.
    """
    settings = _settings(model, prompts, generation)
    file = folder / SETTINGS
    if not file.exists():
        write_whole(file, json.dumps(settings, indent=2) + "\n")
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    differences = [
        f"  {key}: {before.get(key)} -> {value}"
        for key, value in settings.items()
        if before.get(key) != value
    ]
    if differences:
        listed = "\n".join(differences)
        raise ValueError(
            f"{folder} holds answers that were sampled otherwise (old -> new):\n{listed}\n"
            f"valid: another --output, the old settings, or remove {folder} to sample again"
        )


def _settings(
    model: Pretrained, prompts: PromptSettings, generation: GenerationConfig
) -> Mapping[str, Any]:
    """All that an answer depends on besides question and seed."""
    assert model.tokenizer is not None  # `answer_prompts` has refused it before
    sampling = generation.model_dump(mode="json", exclude={"batch_size"})
    return {
        "weights": weights_digest(model.params),
        "tokenizer": tokenizer_digest(model.tokenizer),
        "template": prompts.template,
        "max_prompt_length": prompts.max_prompt_length,
        **_chat(prompts, model.tokenizer),
        **sampling,
    }


def _chat(prompts: PromptSettings, tokenizer: PreTrainedTokenizerFast) -> Mapping[str, Any]:
    """How a chat template is used, where one is."""
    if prompts.template != "chat":
        return {}
    key = ChatRenderer(tokenizer, prompts.chat).key
    return {f"chat.{name}": value for name, value in key.items()}


def _record(question: Question, answer: Answer) -> dict[str, Any]:
    asked = answered_record(question.row, answer)
    return {"number": question.number, **asked, "tokens": answer.tokens}


def _present(file: Path, questions: Sequence[Question]) -> dict[int, Answer]:
    """Answers by number; those to questions that are not asked now stay where they are."""
    asked = {question.number: asked_key(question.row) for question in questions}
    answers: dict[int, Answer] = {}
    for place, line in enumerate(whole_lines(file), start=1):
        try:
            record = json.loads(line)
            number, key = record["number"], asked_key(record)
            text = record["messages"][-1]["content"] if "messages" in record else record["output"]
            answers[number] = Answer(text, record["tokens"], record["finish"])
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"{file}:{place}: not a sampled answer: {error!r}") from error
        if asked.get(number, key) != key:
            raise ValueError(
                f"{file}:{place} answers another question than row {number} asks now: {key}; "
                "valid: another --output, or the rows that it was begun with"
            )
    if file.exists():
        remove_torn_line(file)
    return answers
