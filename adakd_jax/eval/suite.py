"""All held-out measurements in one call: likelihood, distance to the teacher, answers, ROUGE-L."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerFast

from adakd_jax.axes import TokenBatch
from adakd_jax.config import GenerationConfig
from adakd_jax.config.chat import ChatConfig
from adakd_jax.console import Console
from adakd_jax.data.examples import Examples, encode_rows
from adakd_jax.data.loader import evaluation_batches
from adakd_jax.data.progress import track
from adakd_jax.data.row_source import RowSource
from adakd_jax.data.rows import Row, RowError
from adakd_jax.data.templates import TemplateName
from adakd_jax.data.tokenize import Encoder
from adakd_jax.eval.answers import Answer, answer_prompts
from adakd_jax.eval.likelihood import DocumentSums, Likelihood, document_sums
from adakd_jax.eval.progress import shown_generation
from adakd_jax.eval.rouge import ANY_SCRIPT, RougeL, rouge_l
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.hf.vocabulary import Embedding, check_known, ids_from


@dataclasses.dataclass(frozen=True)
class Question:
    """A held-out prompt: its tokens, what was asked in words, and the accepted answers.

    `number` is the place of its row among the held-out rows.
    """

    tokens: tuple[int, ...]
    text: str
    references: tuple[str, ...]
    number: int
    row: Row = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Held-out rows made ready once: packed batches to measure on, and questions to answer.

    `left_out` counts the rows that cannot be asked, by reason; `examples` are what is packed, and
    `tokenizer` says what their ids stand for.
    """

    batches: Sequence[TokenBatch]
    questions: tuple[Question, ...]
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    examples: Examples | None = None
    tokenizer: PreTrainedTokenizerFast | None = None


@dataclasses.dataclass(frozen=True)
class Answered:
    """A question with a model's answer, and its ROUGE-L F1 in [0, 1]."""

    question: Question
    answer: Answer
    rouge_l: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was measured of one model; `rouge` is None where nothing was answered, `documents`
    holds the likelihood's sums by held-out example.
    """

    likelihood: Likelihood
    rouge: RougeL | None = None
    answers: tuple[Answered, ...] = ()
    documents: DocumentSums | None = dataclasses.field(default=None, compare=False, repr=False)

    def metrics(self) -> dict[str, int | float]:
        """The numbers that there are: those of the likelihood, and ROUGE-L with its interval."""
        values = self.likelihood.to_dict()
        if self.rouge is not None:
            values["rouge_l"] = self.rouge.mean
            values["rouge_l_low"], values["rouge_l_high"] = self.rouge.low, self.rouge.high
            if self.rouge.any_script:
                values[ANY_SCRIPT] = self.rouge.any_script
        return values

    def intervals(self, seed: int = 0) -> dict[str, tuple[float, float]]:
        """A 95% bootstrap interval of each metric, over held-out examples."""
        found = {} if self.documents is None else self.documents.intervals(seed=seed)
        if self.rouge is not None:
            found["rouge_l"] = (self.rouge.low, self.rouge.high)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        answers = [
            {
                "prompt": each.question.text,
                "references": list(each.question.references),
                "answer": each.answer.text,
                "tokens": each.answer.tokens,
                "finish": each.answer.finish,
                "rouge_l": each.rouge_l,
            }
            for each in self.answers
        ]
        return {**self.metrics(), "answers": answers}


def hold_ready(
    rows: RowSource,
    tokenizer: PreTrainedTokenizerFast,
    *,
    template: TemplateName = "alpaca",
    max_length: int = 512,
    max_prompt_length: int = 256,
    batch_rows: int = 4,
    max_examples: int | None = None,
    generate_examples: int | None = 100,
    chat: ChatConfig | None = None,
    on_error: Literal["fail", "skip"] = "skip",
    cache_dir: str | Path = "~/.cache/adakd_jax/data",
) -> HeldOut:
    """Makes held-out rows ready for any number of evaluations.

    Args:
      rows: the held-out rows.
      tokenizer: of student and teacher.
      template: the prompt format.
      max_length: tokens of a packed row.
      max_prompt_length: tokens of a prompt, at most.
      batch_rows: packed rows per forward pass.
      max_examples: use only the first rows; None: all.
      generate_examples: how many of them are questions to answer; None: all. With template 'text'
        there are none.
      chat: how a chat template is used; by default as `ChatConfig` says.
      on_error: see `encode_rows`.
      cache_dir: local folder of prepared data.

    Raises:
      EmptyDataError: no row gives an example.
      MalformedRowsError: rows that the chat template cannot write, under 'fail'.
    """
    rows = rows if max_examples is None else rows[:max_examples]
    examples = encode_rows(
        rows,
        template,
        tokenizer,
        max_prompt_length=max_prompt_length,
        max_length=max_length,
        chat=chat,
        on_error=on_error,
        cache_dir=cache_dir,
    )
    questions, left_out = (), {}
    if template != "text" and generate_examples != 0:
        encoder = Encoder(template, tokenizer, max_prompt_length, max_length, chat)
        questions, left_out = _questions(rows[:generate_examples], encoder)
    batches = evaluation_batches(examples, max_length, batch_rows)
    return HeldOut(batches, questions, left_out, examples, tokenizer)


def check_tokens(held_out: HeldOut, models: Sequence[Embedding]) -> None:
    """Refuse held-out rows with tokens that a model has no embedding for.

    Args:
      held_out: from `hold_ready`.
      models: that are to read them.

    Raises:
      UnknownTokensError: names the model, the tokens and what would be valid.
    """
    size = min(model.size for model in models)
    found = ids_from((question.tokens for question in held_out.questions), size)
    if held_out.examples is not None:
        found |= held_out.examples.ids_from(size)
    check_known("the held-out rows hold", found, models, held_out.tokenizer)


def evaluate(
    student: Pretrained,
    held_out: HeldOut,
    generation: GenerationConfig,
    *,
    params: Any = None,
    teacher: Pretrained | None = None,
    answer: bool = True,
    seed: int = 0,
    console: Console | None = None,
) -> Evaluation:
    """Measures a model on held-out rows.

    Args:
      student: the model to measure.
      held_out: from `hold_ready`.
      generation: how answers are sampled.
      params: parameters to use in place of the student's own, e.g. those being trained.
      teacher: what to compare with, or None.
      answer: whether to answer the questions too, which takes longest.
      seed: of sampling and of the bootstrap.
      console: where progress is shown; by default stderr.

    Returns:
      Likelihood and divergences over all response tokens; ROUGE-L over the answers, each scored
      against its best reference.
    """
    params = student.params if params is None else params
    documents = document_sums(
        student.graphdef,
        params,
        None if teacher is None else teacher.graphdef,
        None if teacher is None else teacher.params,
        track(held_out.batches, "measuring", len(held_out.batches)),
    )
    measured = documents.likelihood()
    questions = held_out.questions if answer else ()
    if not questions:
        return Evaluation(measured, documents=documents)
    with shown_generation("answering", console) as progress:
        answers = answer_prompts(
            student,
            [question.tokens for question in questions],
            generation,
            params=params,
            seed=seed,
            progress=progress,
        )
    texts = [each.text for each in answers]
    rouge = rouge_l(texts, [question.references for question in questions], seed=seed)
    answered = zip(questions, answers, rouge.scores, strict=True)
    answers = tuple(Answered(*each) for each in answered)
    return Evaluation(measured, rouge, answers, documents)


def _questions(
    rows: Sequence[Row], encoder: Encoder
) -> tuple[tuple[Question, ...], dict[str, int]]:
    questions, left_out = [], Counter[str]()
    for number, row in enumerate(rows):
        try:
            prompt = encoder.prompt(row)
        except RowError as error:
            left_out[str(error)] += 1
            continue
        if not prompt.references:
            left_out["no answer to compare with"] += 1
            continue
        tokens = tuple(prompt.tokens.tolist())
        references = tuple(prompt.references)
        questions.append(Question(tokens, _asked(row), references, number, row))
    return tuple(questions), dict(left_out)


def _asked(row: Row) -> str:
    """What was asked, without the words of the template."""
    if row["messages"]:
        return [turn["content"] for turn in row["messages"] if turn["role"] != "assistant"][-1]
    return "\n\n".join(part for part in (row["instruction"], row["input"]) if part)
