"""Where the turns of a conversation stand in what a chat template writes of it."""

from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile

from adakd_jax.data.chat_ends import TurnEnds
from adakd_jax.data.chat_render import PROBE, ChatRenderer, TemplateRowError
from adakd_jax.data.left_out import left_out
from adakd_jax.data.messages import Message
from adakd_jax.data.rows import Row, RowError
from adakd_jax.data.templates import Part

Mark = tuple[int, int, Part]
_WAYS_OUT = (
    "valid: data.chat.template with a .jinja file that writes it; data.chat.left_out verbatim (a "
    "last answer is learned as it stands) or ignore (what the template writes is learned); "
)
_CONTEXT = "or weight 0 in that message, which is then context only"
_THOUGHT = "a thought within the content, as <think>…</think>, if the template knows that; "
_SWITCH = "data.chat.kwargs, if the template has a switch such as enable_thinking; "


class WrittenTurns:
    """The turns of a conversation in a text of its template."""

    def __init__(
        self,
        renderer: ChatRenderer,
        ends: TurnEnds,
        row: Row,
        messages: Sequence[Message],
        text: str,
    ) -> None:
        """Takes what was rendered, and the text: of these messages, or of more that follow."""
        self._renderer, self._ends = renderer, ends
        self._row, self._messages, self._text = row, messages, text
        self._strict = renderer.chat.left_out != "ignore"

    def marks(self, turns: Sequence[int]) -> list[Mark]:
        """Where the answers of some turns stand, and the words of the users before each.

        Raises:
          TemplateRowError: an answer is not found, or not as it is to be learned.
        """
        marks, after = [], 0
        for turn in turns:
            places = self._answer(turn)
            marks += self.user_marks(after, turn)
            marks += [(start, end, Part.ANSWER) for start, end in places]
            after = turn + 1
        return marks

    def user_marks(self, first: int, last: int) -> list[Mark]:
        """Where the words of users from message `first` on and before `last` stand; these may be
        cut.
        """
        marks = []
        for index in range(first, last):
            message = self._messages[index]
            if message["role"] != "user":
                continue
            probe = {**message, "content": PROBE}
            place = self._render([*self._messages[:index], probe]).rfind(PROBE)
            for words in (message["content"], message["content"].strip()):
                if place >= 0 and words and self._text.startswith(words, place):
                    marks += _user_parts(self._row, words, place)
                    break
        return marks

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        return self._renderer.render(
            messages, self._row, add_generation_prompt=add_generation_prompt
        )

    @cached_property
    def _marked(self) -> dict[int, list[tuple[int, int]]] | None:
        """What the template itself marks of each assistant turn, if it has such marks."""
        found = self._renderer.marked(self._messages, self._row)
        if found is None:
            return None
        roles = enumerate(message["role"] for message in self._messages)
        turns = [index for index, role in roles if role == "assistant"]
        if len(found) == len(turns):
            return {turn: [place] for turn, place in zip(turns, found, strict=True)}
        # Several parts of a turn: it reaches to where the text of the next one differs.
        begins = [self._common(self._messages[:turn]) for turn in turns]
        bounds = zip(turns, begins, [*begins[1:], len(self._text)], strict=True)
        return {
            turn: [(start, end) for start, end in found if first <= start < last]
            for turn, first, last in bounds
        }

    def _common(self, messages: Sequence[Message]) -> int:
        return common_length(self._render(messages), self._text)

    def _answer(self, turn: int) -> list[tuple[int, int]]:
        """Where an answer begins and ends; several parts of it, if the template marks them so."""
        where = f"messages[{turn}]" if self._row["messages"] else "the answer"
        start, unkept = self._start(turn, where)
        places = [(start, self._end(turn, start))] if self._marked is None else []
        for first, last in () if self._marked is None else self._marked[turn]:
            if last > start:
                places.append((max(first, start), last))
        if self._strict:
            self._check(turn, where, places, unkept)
        if not places:
            raise TemplateRowError(f"the chat template marks nothing of {where} to learn")
        return places

    def _check(self, turn: int, where: str, places: Sequence[tuple[int, int]], unkept: str) -> None:
        """Refuses an answer that is not all there, or that stands elsewhere than it is asked for.

        Earlier turns are history too: their thoughts may be asked for and not be kept.
        """
        opening = self._renderer.opening
        before = max(0, min((start for start, _ in places), default=0) - len(opening))
        written = self._text[before : max((end for _, end in places), default=0)]
        lacking = left_out(self._messages[turn], written)
        if lacking is not None:
            thought = "" if lacking in ("content", "tool_calls") else _THOUGHT
            raise TemplateRowError(
                f"the chat template leaves out {lacking!r} of {where}, or part of it; "
                f"{_WAYS_OUT}{thought}{_CONTEXT}"
            )
        if unkept and turn == len(self._messages) - 1:
            raise TemplateRowError(
                f"the chat template asks for {where} with {opening!r}, but does not write it so: a "
                f"model would be asked otherwise than it is taught; {_WAYS_OUT}{_SWITCH}{_CONTEXT}"
            )

    def _start(self, turn: int, where: str) -> tuple[int, str]:
        """Where a model begins to write, after what the template writes to ask for an answer; and
        what of that it does not keep, such as an opened thought.
        """
        asked = asked_messages(self._messages[: turn + 1])
        asking = self._render(asked, add_generation_prompt=True)
        common = common_length(asking, self._text)
        if common == len(asking):
            return common, ""
        if common >= len(self._render(asked)):
            start = self._renderer.token_start(self._text, common)
            return start, asking[start:]
        if self._marked is not None:
            return 0, ""
        raise TemplateRowError(
            f"the chat template writes what comes before {where} otherwise once more follows, so "
            "its answer cannot be found; split it into rows of one answer each, or use a template "
            "with {% generation %} marks"
        )

    def _end(self, turn: int, start: int) -> int:
        is_last = turn == len(self._messages) - 1
        through = self._text if is_last else self._render(self._messages[: turn + 1])
        if not self._ends.text:
            return self._end_of_words(turn, start, through)
        if self._text.startswith(through):
            ends = self._ends.last
            place = max((_after_last(end, through, start) for end in ends), default=-1)
        else:
            ends = (*self._ends.last, *self._ends.middle)
            places = (self._text.find(end, start) + len(end) for end in ends)
            place = min((p for p in places if p > start), default=-1)
        if place < 0:
            raise TemplateRowError("the chat template changes the end of an assistant turn")
        words = self._ends.without_end(self._text[start:place])
        if any(end in words for end in self._ends.last):
            held = next(end for end in self._ends.last if end in words)
            raise TemplateRowError(f"an assistant turn contains {held!r}, which ends a turn")
        return place

    def _end_of_words(self, turn: int, start: int, through: str) -> int:
        """The end of a turn that the template ends with nothing."""
        if self._text.startswith(through):
            return len(through.rstrip())
        words = self._messages[turn]["content"].strip()
        place = self._text.find(words, start)
        if place < 0:
            raise TemplateRowError("the chat template changes the text of an assistant turn")
        return place + len(words)


def asked_messages(messages: Sequence[Message]) -> Sequence[Message]:
    """The conversation without a last assistant turn: what a model is asked to continue.

    Raises:
      RowError: nothing is left.
    """
    asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    if not asked:
        raise RowError("the conversation has no turn before the answer")
    return asked


def common_length(first: str, second: str) -> int:
    """How many characters two texts begin with alike."""
    if second.startswith(first):
        return len(first)
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _after_last(end: str, text: str, start: int) -> int:
    place = text.rfind(end, start)
    return place + len(end) if place >= 0 else -1


def _user_parts(row: Row, words: str, place: int) -> list[Mark]:
    """Marks a user turn at `place`: an instruction and its input, if the row has them apart."""
    given = row["input"].strip()
    if row["messages"] or not given:
        return [(place, place + len(words), Part.INSTRUCTION)]
    asked, end = place + words.rindex(given), place + words.rindex(given) + len(given)
    separator = len("\n\n")
    return [(place, asked - separator, Part.INSTRUCTION), (asked, end, Part.INPUT)]
