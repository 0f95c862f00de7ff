"""The tokenizer's own chat template, with every assistant turn found in what it writes."""

from collections.abc import Sequence
from itertools import takewhile

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from adakd_jax.data.rows import Message, Row, RowError
from adakd_jax.data.templates import Formatted, Part, Segment

# Stands for a turn's words when asking the template what it writes around them.
_PROBE = "probe-7f3a"


class ChatTemplate:
    """Formats rows with the tokenizer's chat template.

    In a conversation every assistant turn is a target, with the end-of-turn token that a model must
    write to end it; the last one of a row that was cut has no such end. An instruction with its
    input becomes one user turn. The targets are found by comparing what the template writes up to
    each turn with what it writes in all, which works for any template that does not rewrite earlier
    turns.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        """Takes the tokenizer whose template it is.

        Raises:
          ValueError: the tokenizer has none.
        """
        if not tokenizer.chat_template:
            raise ValueError(
                "data.template is 'chat', but the tokenizer has no chat template; "
                "valid: 'alpaca', 'text'"
            )
        self._tokenizer = tokenizer
        self._end_of_turn = self._find_end_of_turn()

    def example(self, row: Row) -> Formatted:
        """Formats the whole conversation, up to the end of the last assistant turn."""
        messages = _conversation(row)
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not turns:
            raise RowError("no answer to learn from")
        messages = messages[: turns[-1] + 1]
        text = self._render(messages)
        marks, after, end = [], 0, 0
        for turn in turns:
            start = self._start_of_answer(messages, turn, text)
            end = self._end_of_answer(messages[turn], text, start)
            marks += self._user_marks(text, row, messages[:turn], after)
            marks.append((start, end, Part.ANSWER))
            after = turn + 1
        if row["cut"]:
            end -= len(self._end_of_turn)
            marks[-1] = (start, end, Part.ANSWER)
        text = text[:end]
        if not self._end_of_turn and not row["cut"]:
            text, marks = self._with_eos(text, marks)
        return Formatted(_segments(text, marks), bare=False, cut=row["cut"])

    def prompt(self, row: Row) -> Formatted:
        """Formats everything before the last assistant turn, and the opening of the next answer."""
        messages = _asked(_conversation(row))
        text = self._render(messages, add_generation_prompt=True)
        return Formatted(_segments(text, self._user_marks(text, row, messages, 0)), bare=False)

    def references(self, row: Row) -> list[str]:
        """The accepted answers, or the last assistant turn of a conversation."""
        if not row["messages"]:
            return row["outputs"]
        last = row["messages"][-1]
        return [last["content"]] if last["role"] == "assistant" else []

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                [{"role": message["role"], "content": message["content"]} for message in messages],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        except TemplateError as error:
            raise RowError(f"the chat template refuses the conversation: {error}") from error
        return str(text)

    def _find_end_of_turn(self) -> str:
        """What the template writes after an answer, up to and with the first special token."""
        asked = [Message(role="user", content="question")]
        text = self._render([*asked, Message(role="assistant", content=_PROBE)])
        tail = text.rpartition(_PROBE)[2]
        special = [str(token) for token in self._tokenizer.added_tokens_decoder.values()]
        ends = [tail.index(token) + len(token) for token in special if token and token in tail]
        return tail[: min(ends)] if ends else tail.rstrip()

    def _start_of_answer(self, messages: Sequence[Message], turn: int, text: str) -> int:
        """Where a model begins to write: after what the template writes to ask for an answer."""
        asked = _asked(list(messages[: turn + 1]))
        asking = self._render(asked, add_generation_prompt=True)
        if text.startswith(asking):
            return len(asking)
        common = _common_length(asking, text)
        # Some templates open an answer with more than they keep of it (an open thought): then what
        # comes before the answer must agree.
        if common < len(self._render(asked)):
            raise RowError(
                f"the chat template writes what comes before messages[{turn}] otherwise once more "
                "follows, so its answer cannot be found; split it into rows of one answer each"
            )
        return common

    def _end_of_answer(self, message: Message, text: str, start: int) -> int:
        ending = self._end_of_turn
        if ending and ending in message["content"]:
            raise RowError(f"an assistant turn contains {ending!r}, which ends a turn")
        words = ending or message["content"].strip()
        place = text.find(words, start)
        if place < 0:
            raise RowError("the chat template changes the text or the end of an assistant turn")
        return place + len(words)

    def _user_marks(
        self, text: str, row: Row, messages: Sequence[Message], after: int
    ) -> list[tuple[int, int, Part]]:
        """Where `text` holds the words of the user turns from `after` on; these may be cut."""
        marks = []
        for index, message in enumerate(messages):
            if index < after or message["role"] != "user":
                continue
            probe = Message(role="user", content=_PROBE)
            place = self._render([*messages[:index], probe]).rfind(_PROBE)
            for words in (message["content"], message["content"].strip()):
                if place >= 0 and words and text.startswith(words, place):
                    marks += _user_parts(row, words, place)
                    break
        return marks

    def _with_eos(
        self, text: str, marks: list[tuple[int, int, Part]]
    ) -> tuple[str, list[tuple[int, int, Part]]]:
        """Ends the last answer with EOS where the template itself ends turns with nothing."""
        *others, (start, _, part) = marks
        text += str(self._tokenizer.eos_token)
        return text, [*others, (start, len(text), part)]


def _common_length(first: str, second: str) -> int:
    """How many characters the two texts begin with alike."""
    pairs = zip(first, second, strict=False)
    alike = takewhile(lambda pair: pair[0] == pair[1], pairs)
    return sum(1 for _ in alike)


def _conversation(row: Row) -> list[Message]:
    if row["messages"]:
        return row["messages"]
    if not row["instruction"]:
        raise RowError(
            "template 'chat' needs messages or an instruction; for plain text use 'text'"
        )
    asked = "\n\n".join(part for part in (row["instruction"], row["input"]) if part)
    answer = [Message(role="assistant", content=text) for text in row["outputs"][:1]]
    return [Message(role="user", content=asked), *answer]


def _asked(messages: list[Message]) -> list[Message]:
    """The conversation without a last assistant turn: what a model is asked to continue."""
    asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    if not asked:
        raise RowError("the conversation has no turn before the answer")
    return asked


def _user_parts(row: Row, words: str, place: int) -> list[tuple[int, int, Part]]:
    """Marks a user turn at `place`: an instruction and its input, if the row has them apart."""
    given = row["input"].strip()
    if row["messages"] or not given:
        return [(place, place + len(words), Part.INSTRUCTION)]
    asked, end = place + words.rindex(given), place + words.rindex(given) + len(given)
    separator = len("\n\n")
    return [(place, asked - separator, Part.INSTRUCTION), (asked, end, Part.INPUT)]


def _segments(text: str, marks: Sequence[tuple[int, int, Part]]) -> tuple[Segment, ...]:
    """Cuts text at the marks; what lies between them is the template's own."""
    segments, place = [], 0
    for start, end, part in marks:
        segments += [Segment(text[place:start], Part.TEMPLATE), Segment(text[start:end], part)]
        place = end
    segments.append(Segment(text[place:], Part.TEMPLATE))
    return tuple(segment for segment in segments if segment.text)
