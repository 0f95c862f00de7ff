"""Prompt formats: a row becomes text in segments that say what is learned and what may be cut."""

from enum import IntEnum
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from transformers import PreTrainedTokenizerFast

from adakd_jax.config.chat import ChatConfig
from adakd_jax.data.rows import Row, RowError

TemplateName = Literal["alpaca", "chat", "text"]

_ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, "
    "paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n"
)
_ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n"
)


class Part(IntEnum):
    """What a piece of text is: the template's own words, what may be cut, or what is learned."""

    TEMPLATE = 0
    INSTRUCTION = 1
    INPUT = 2
    ANSWER = 3


class Segment(NamedTuple):
    """A piece of a formatted row."""

    text: str
    part: Part


class Formatted(NamedTuple):
    """A row as text, in order.

    `bare` says that the text is without the special tokens around it: tokenization then puts the
    tokenizer's own in front, and EOS, a target, after an answer that was not cut. A chat template
    writes its special tokens itself. `cut` says that the answer lacks its end already.
    """

    segments: tuple[Segment, ...]
    bare: bool
    cut: bool = False


@runtime_checkable
class Template(Protocol):
    """A prompt format."""

    def example(self, row: Row) -> Formatted:
        """Formats prompt and first accepted answer; raises `RowError` if the row has none."""
        ...

    def prompt(self, row: Row) -> Formatted:
        """Formats what a model is given to continue; raises `RowError` if the row has none."""
        ...

    def references(self, row: Row) -> list[str]:
        """The accepted answers to the prompt; may be empty."""
        ...


class AlpacaTemplate:
    """The prompt of Stanford Alpaca, with and without input.

    References:
      Taori et al., "Stanford Alpaca: An Instruction-following LLaMA model", 2023.
    """

    def prompt(self, row: Row) -> Formatted:
        """Formats instruction and input, up to the place where the answer begins."""
        if not row["instruction"]:
            raise RowError("template 'alpaca' needs an instruction; for conversations use 'chat'")
        instruction = Segment(row["instruction"], Part.INSTRUCTION)
        response = Segment("\n\n### Response:\n", Part.TEMPLATE)
        if not row["input"]:
            opening = Segment(_ALPACA_WITHOUT_INPUT, Part.TEMPLATE)
            return Formatted((opening, instruction, response), bare=True)
        opening = Segment(_ALPACA_WITH_INPUT, Part.TEMPLATE)
        between = Segment("\n\n### Input:\n", Part.TEMPLATE)
        given = Segment(row["input"], Part.INPUT)
        return Formatted((opening, instruction, between, given, response), bare=True)

    def example(self, row: Row) -> Formatted:
        """Formats the prompt and the first accepted answer."""
        prompt = self.prompt(row)
        if not row["outputs"]:
            raise RowError("no answer to learn from")
        answer = Segment(row["outputs"][0], Part.ANSWER)
        return Formatted((*prompt.segments, answer), bare=True, cut=row["cut"])

    def references(self, row: Row) -> list[str]:
        """All accepted answers."""
        return row["outputs"]


class TextTemplate:
    """Plain text: every token is a target, and there is nothing to answer."""

    def example(self, row: Row) -> Formatted:
        """Takes the row's text as it is."""
        if not row["text"]:
            raise RowError("template 'text' needs a text column, the one that columns.text names")
        return Formatted((Segment(row["text"], Part.ANSWER),), bare=True, cut=row["cut"])

    def prompt(self, row: Row) -> Formatted:
        """Raises `RowError`: plain text has no prompt."""
        raise RowError("template 'text' has no prompt, so there is nothing to answer")

    def references(self, row: Row) -> list[str]:
        """None: there is nothing to answer."""
        return []


def make_template(
    name: TemplateName, tokenizer: PreTrainedTokenizerFast, chat: ChatConfig | None = None
) -> Template:
    """Builds a prompt format.

    Args:
      name: 'alpaca', 'chat' (the tokenizer's own template) or 'text'.
      tokenizer: the tokenizer of teacher and student.
      chat: how its template is used; by default as `ChatConfig` says.

    Returns:
      The template.

    Raises:
      ValueError: 'chat' with a tokenizer that has no chat template.
    """
    if name == "chat":
        from adakd_jax.data.chat import ChatTemplate

        return ChatTemplate(tokenizer, chat)
    return AlpacaTemplate() if name == "alpaca" else TextTemplate()


def template_warning(name: TemplateName, teacher_tokenizer: PreTrainedTokenizerFast) -> str | None:
    """Says so when an instruct teacher gets a prompt format that it was not trained on.

    Args:
      name: the template of the run.
      teacher_tokenizer: the teacher's tokenizer; one with a chat template belongs to an instruct
        model.

    Returns:
      The warning, or None if there is nothing to warn of.
    """
    if name == "chat" or not teacher_tokenizer.chat_template:
        return None
    return (
        "the teacher's tokenizer has a chat template, so it was tuned on conversations, but "
        f"data.template is {name!r}, a format that it was probably not trained on: what it says "
        "there teaches less; valid too: data.template: chat"
    )
