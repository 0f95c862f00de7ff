"""Rows as conversations in the tokenizer's own chat template."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from adakd_jax.config.chat import ChatConfig
from adakd_jax.data.chat_ends import turn_ends
from adakd_jax.data.chat_render import ChatRenderer, TemplateRowError
from adakd_jax.data.chat_turns import Mark, WrittenTurns, asked_messages, common_length
from adakd_jax.data.left_out import unwritten_tool
from adakd_jax.data.messages import Message, is_learned
from adakd_jax.data.rows import Row, RowError
from adakd_jax.data.templates import Formatted, Part, Segment


class ChatTemplate:
    """Formats rows with the tokenizer's chat template.

    In a conversation every assistant turn of weight 1 is a target, with the end-of-turn token that
    a model must write to end it; the last one of a row that was cut has no such end. An instruction
    with its input becomes one user turn. Targets are what `{% generation %}` marks in a template
    that has such marks; otherwise they are found by comparing what the template writes up to each
    turn with what it writes in all. What a template would silently leave out of an answer, or write
    otherwise than it asks for it, makes a row malformed; see `ChatConfig.left_out`. An answer that
    a model wrote is learned as it stands, for it wrote it right after what the template asked.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, chat: ChatConfig | None = None):
        """Takes the tokenizer whose template it is, and how it is used.

        Raises:
          ValueError: the tokenizer has none, or it cannot write a question and its answer.
        """
        self._tokenizer = tokenizer
        self._renderer = ChatRenderer(tokenizer, chat)
        self._ends = turn_ends(self._renderer)

    @property
    def key(self) -> Mapping[str, Any]:
        """All that its texts depend on besides the tokenizer, as JSON values."""
        return self._renderer.key

    def example(self, row: Row) -> Formatted:
        """Formats the whole conversation, up to the end of the last answer to learn."""
        messages = _conversation(row)
        turns = [index for index, message in enumerate(messages) if is_learned(message)]
        if not turns:
            raise RowError("no answer to learn from")
        messages = messages[: turns[-1] + 1]
        way = self._verbatim if row["generated"] else self._written
        text, marks = way(row, messages, turns)
        start, end, part = marks[-1]
        if row["cut"]:
            end = start + len(self._ends.without_end(text[start:end]))
        text = text[:end]
        if not self._ends.text and not row["cut"]:
            text += str(self._tokenizer.eos_token)
        marks[-1] = (start, len(text), part)
        return Formatted(_segments(text, marks), bare=False, cut=row["cut"])

    def prompt(self, row: Row) -> Formatted:
        """Formats everything before the last assistant turn, and the opening of the next answer."""
        messages = asked_messages(_conversation(row))
        text = self._renderer.render(messages, row, add_generation_prompt=True)
        _check_tools(row, text)
        turns = self._turns(row, messages, text)
        return Formatted(_segments(text, turns.user_marks(0, len(messages))), bare=False)

    def references(self, row: Row) -> list[str]:
        """The accepted answers, or the last assistant turn of a conversation."""
        if not row["messages"]:
            return row["outputs"]
        last = row["messages"][-1]
        return [last["content"]] if last["role"] == "assistant" and last["content"] else []

    def _turns(self, row: Row, messages: Sequence[Message], text: str) -> WrittenTurns:
        return WrittenTurns(self._renderer, self._ends, row, messages, text)

    def _written(
        self, row: Row, messages: list[Message], turns: Sequence[int]
    ) -> tuple[str, list[Mark]]:
        """What the template writes of a conversation that ends with an answer."""
        text = self._renderer.render(messages, row)
        _check_tools(row, text)
        try:
            return text, self._turns(row, messages, text).marks(turns)
        except TemplateRowError:
            plain = set(messages[-1]) <= {"role", "content", "weight"}
            if self._renderer.chat.left_out != "verbatim" or not plain:
                raise
        return self._verbatim(row, messages, turns, text)

    def _verbatim(
        self, row: Row, messages: list[Message], turns: Sequence[int], written: str | None = None
    ) -> tuple[str, list[Mark]]:
        """The last answer as it stands, right after what the template writes to ask for it.

        `written` is what the template writes in all: what it asks with and does not keep there,
        such as `<think>`, is not said twice. A model's own answer never says it.
        """
        last = turns[-1]
        asked = asked_messages(messages)
        asking = self._renderer.render(asked, row, add_generation_prompt=True)
        _check_tools(row, asking)
        before = self._turns(row, asked, asking)
        marks = before.marks(turns[:-1])
        marks += before.user_marks(turns[-2] + 1 if len(turns) > 1 else 0, last)
        answer = messages[last]["content"]
        if written is not None:
            opened = asking[common_length(asking, written) :]
            answer = answer.removeprefix(opened).removeprefix(opened.rstrip())
        text = asking + answer + self._ends.text
        return text, [*marks, (len(asking), len(text), Part.ANSWER)]


def _check_tools(row: Row, text: str) -> None:
    name = unwritten_tool(row["tools"], text)
    if name is not None:
        raise TemplateRowError(
            f"the chat template does not write the row's tools, {name!r} first; valid: "
            "data.chat.template with one that does, or rows without tools"
        )


def _conversation(row: Row) -> list[Message]:
    if row["messages"]:
        return row["messages"]
    if not row["instruction"]:
        raise RowError(
            "template 'chat' needs messages or an instruction; for plain text use 'text'"
        )
    asked = "\n\n".join(part for part in (row["instruction"], row["input"]) if part)
    answer: list[Message] = [{"role": "assistant", "content": text} for text in row["outputs"][:1]]
    return [{"role": "user", "content": asked}, *answer]


def _segments(text: str, marks: Sequence[Mark]) -> tuple[Segment, ...]:
    """Cuts text at the marks; what lies between them is the template's own."""
    segments, place = [], 0
    for start, end, part in marks:
        segments += [Segment(text[place:start], Part.TEMPLATE), Segment(text[start:end], part)]
        place = end
    segments.append(Segment(text[place:], Part.TEMPLATE))
    return tuple(segment for segment in segments if segment.text)
