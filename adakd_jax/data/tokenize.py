"""Formatted rows to tokens: what a model reads, and which of it is a target."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Int32
from transformers import PreTrainedTokenizerFast

from adakd_jax.config.chat import ChatConfig
from adakd_jax.data.messages import is_learned
from adakd_jax.data.pieces import ACROSS, ANSWER, Cuts, Pieces, fit_prompt, join, token_parts
from adakd_jax.data.rows import Row, RowError
from adakd_jax.data.templates import Formatted, Part, Segment, Template, TemplateName, make_template

Result = TypeVar("Result")


class Example(NamedTuple):
    """One row as tokens; `targets` marks those to learn: answers, and EOS after a whole one."""

    tokens: Int32[np.ndarray, " T"]
    targets: Bool[np.ndarray, " T"]
    cuts: Cuts = Cuts()


class Prompt(NamedTuple):
    """What a model is given to continue, in tokens and as text, and the accepted answers."""

    tokens: Int32[np.ndarray, " T"]
    text: str
    references: list[str]
    cuts: Cuts


def encode_example(
    row: Row,
    template: Template | TemplateName,
    tokenizer: PreTrainedTokenizerFast,
    max_prompt_length: int,
    max_length: int,
) -> Example:
    """Tokenizes one row for training: `Encoder.example`, for a single row."""
    return Encoder(template, tokenizer, max_prompt_length, max_length).example(row)


def encode_prompt(
    row: Row,
    template: Template | TemplateName,
    tokenizer: PreTrainedTokenizerFast,
    max_prompt_length: int,
) -> Prompt:
    """Tokenizes one row's prompt for generation: `Encoder.prompt`, for a single row."""
    return Encoder(template, tokenizer, max_prompt_length, max_prompt_length + 1).prompt(row)


class Encoder:
    """Tokenizes rows with one template and one tokenizer.

    A prompt has the same tokens in training and in generation: prompt and answer are tokenized as
    one text where that leaves the prompt's tokens as they are, otherwise (a token would reach
    across) each on its own.
    """

    def __init__(
        self,
        template: Template | TemplateName,
        tokenizer: PreTrainedTokenizerFast,
        max_prompt_length: int,
        max_length: int,
        chat: ChatConfig | None = None,
    ):
        """Prepares for rows of a template.

        Args:
          template: the prompt format.
          tokenizer: a fast tokenizer (it says where in the text each token stands) with an EOS
            token.
          max_prompt_length: tokens of a prompt, at most; at least 1.
          max_length: tokens of an example, at most; at least 2.
          chat: how a chat template is used; by default as `ChatConfig` says.

        Raises:
          ValueError: the tokenizer lacks one of these, or a chat template that is asked for.
        """
        if not tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__} is not a fast tokenizer, which is needed")
        eos = tokenizer.eos_token_id
        if not isinstance(eos, int):
            raise ValueError(
                "the tokenizer has no EOS token, which ends every answer; set eos_token"
            )
        self.template = (
            make_template(template, tokenizer, chat) if isinstance(template, str) else template
        )
        self.tokenizer = tokenizer
        self.max_prompt_length = max_prompt_length
        self.max_length = max_length
        self._eos = eos
        self._opening = _opening_tokens(tokenizer)

    @property
    def template_key(self) -> list[Any]:
        """All that the texts depend on besides rows and tokenizer, as JSON values."""
        return [type(self.template).__name__, dict(getattr(self.template, "key", {}))]

    def example(self, row: Row) -> Example:
        """Tokenizes one row for training.

        Raises:
          RowError: the row lacks what the template needs, or nothing of its answer fits.
        """
        result = self.examples([row])[0]
        if isinstance(result, RowError):
            raise result
        return result

    def examples(self, rows: Sequence[Row]) -> list[Example | RowError]:
        """Tokenizes many rows in parallel; a row that cannot be used gives its `RowError`."""
        formatted = [_attempt(self.template.example, row) for row in rows]
        good = [row for row in formatted if isinstance(row, Formatted)]
        whole = self._encode([row.segments for row in good])
        prompts = self._tokenize([_text(_first_prompt(row.segments)) for row in good])["input_ids"]
        encoded = iter(zip(whole, prompts, strict=True))
        return [
            _attempt(self._fit_example, row, *next(encoded)) if isinstance(row, Formatted) else row
            for row in formatted
        ]

    def prompt(self, row: Row) -> Prompt:
        """Tokenizes one row's prompt for generation.

        Raises:
          RowError: the row has no prompt in this template, or its template alone is too long; or
            what stands before the last of several answers is, which training does not cut.
        """
        formatted = self.template.prompt(row)
        pieces = self._with_opening(formatted, self._encode([formatted.segments])[0])
        whole = len(pieces.tokens)
        pieces, cuts = fit_prompt(pieces, self.max_prompt_length)
        if len(pieces.tokens) < whole and _has_earlier_answer(row):
            raise RowError(
                f"the conversation before the last answer has more than max_prompt_length "
                f"{self.max_prompt_length} tokens, and is not cut in training either"
            )
        return Prompt(pieces.tokens, _text(formatted.segments), self.template.references(row), cuts)

    def _encode(self, rows: Sequence[Sequence[Segment]]) -> list[Pieces]:
        """Tokenizes each row's text in one go, without special tokens around it."""
        if not rows:
            return []
        batch = self._tokenize([_text(segments) for segments in rows], return_offsets_mapping=True)
        encoded = zip(batch["input_ids"], batch["offset_mapping"], rows, strict=True)
        return [
            Pieces(
                np.array(ids, np.int32),
                token_parts(np.array(spans, np.int64).reshape(-1, 2), segments),
            )
            for ids, spans, segments in encoded
        ]

    def _tokenize(self, texts: list[str], **options: Any) -> Mapping[str, list]:
        if not texts:
            return {"input_ids": []}
        options |= {"return_attention_mask": False, "return_token_type_ids": False}
        return self.tokenizer(texts, add_special_tokens=False, verbose=False, **options)

    def _with_opening(self, formatted: Formatted, pieces: Pieces) -> Pieces:
        if not formatted.bare or not len(self._opening):
            return pieces
        return join([Pieces(self._opening, np.zeros(len(self._opening), np.int8)), pieces])

    def _fit_example(self, formatted: Formatted, whole: Pieces, prompt: list[int]) -> Example:
        kept = self._keep_prompt_tokens(formatted, whole, prompt)
        pieces = self._with_opening(formatted, kept)
        if formatted.bare and not formatted.cut:
            eos = Pieces(np.array([self._eos], np.int32), np.array([ANSWER], np.int8))
            pieces = join([pieces, eos])
        pieces, cuts = fit_prompt(pieces, self.max_prompt_length)
        room = min(len(pieces.tokens), self.max_length)
        is_answer = pieces.parts == ANSWER
        lost = int(np.count_nonzero(is_answer[room:]))
        learned = np.flatnonzero(is_answer[:room])
        # The first token of all has nothing before it to predict it from.
        if not len(learned) or learned[-1] == 0:
            limits = f"max_length {self.max_length}, max_prompt_length {self.max_prompt_length}"
            raise RowError(f"no token of the answer fits ({limits})")
        # After the last target nothing is learned and nothing needs to be seen.
        end = learned[-1] + 1
        return Example(pieces.tokens[:end], is_answer[:end], cuts._replace(answer=lost))

    def _keep_prompt_tokens(self, formatted: Formatted, whole: Pieces, prompt: list[int]) -> Pieces:
        """The whole text's tokens, unless they differ from the prompt's own: then run by run."""
        same = whole.tokens[: len(prompt)].tolist() == prompt
        if same and not np.any(whole.parts == ACROSS):
            return whole
        return join(self._encode(_runs(formatted.segments)))


def _opening_tokens(tokenizer: PreTrainedTokenizerFast) -> Int32[np.ndarray, " N"]:
    """The special tokens that the tokenizer puts in front of a text, such as BOS."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    usual = tokenizer("a")["input_ids"]
    starts = [i for i in range(len(usual)) if usual[i : i + len(bare)] == bare]
    return np.array(usual[: starts[0]] if starts else [], np.int32)


def _attempt(function: Callable[..., Result], *arguments: Any) -> Result | RowError:
    try:
        return function(*arguments)
    except RowError as error:
        return error


def _text(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments)


def _has_earlier_answer(row: Row) -> bool:
    """Whether a conversation has an answer to learn before the one that is asked for."""
    turns = row["messages"]
    last = len(turns) - 1 if turns and turns[-1]["role"] == "assistant" else len(turns)
    return any(map(is_learned, turns[:last]))


def _first_prompt(segments: Sequence[Segment]) -> Sequence[Segment]:
    """What stands before the first answer."""
    answers = [i for i, segment in enumerate(segments) if segment.part == Part.ANSWER]
    return segments[: answers[0]] if answers else segments


def _runs(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Splits where what is given turns into what is learned, or back."""
    runs: list[list[Segment]] = []
    for segment in segments:
        learned = segment.part == Part.ANSWER
        if runs and (runs[-1][-1].part == Part.ANSWER) == learned:
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return runs
