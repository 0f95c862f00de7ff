"""What a tokenizer's chat template writes, and with which tokens it ends an assistant's turn."""

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from adakd_jax.config.chat import ChatConfig
from adakd_jax.data.messages import Message, RowError

Result = TypeVar("Result")
# Stands for a turn's words when asking the template what it writes around them. Private characters:
# no template trims or splits them, and no text begins or ends with them.
PROBE = "\ue000probe\ue000"
_QUESTION = {"role": "user", "content": "question"}
_CALL = {"name": "probe", "arguments": {"probe": PROBE}}
_TOOL = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "probe",
        "parameters": {"type": "object", "properties": {"probe": {"type": "string"}}},
    },
}
_NOW = re.compile(r"""strftime_now\(\s*(?:format\s*=\s*)?(["'])(.*?)\1\s*\)""")
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


class TemplateRowError(RowError):
    """The template cannot write a row as it is to be learned; unlike a row that is merely too long,
    such a row is malformed.
    """


class TurnEnds(NamedTuple):
    """What the template writes after the words of an assistant.

    `text` is all of it up to and with the first special token, "" if nothing is written. `last` are
    the texts that end a last turn, an answer or a call of a tool; `middle` those of earlier turns
    besides.
    """

    text: str
    last: tuple[str, ...]
    middle: tuple[str, ...]


class ChatRenderer:
    """Renders conversations with a tokenizer's chat template, as the same date every time."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, chat: ChatConfig | None = None):
        """Takes the tokenizer whose template it is.

        Raises:
          ValueError: it has none, or several without a default.
        """
        self.tokenizer = tokenizer
        self.chat = chat or ChatConfig()
        if not tokenizer.chat_template:
            raise ValueError(
                "data.template is 'chat', but the tokenizer has no chat template; valid: "
                "data.chat.template with a .jinja file, or data.template 'alpaca' or 'text'"
            )
        self._sources = template_sources(tokenizer)
        self._pinned = {name: _pinned(text, self.chat) for name, text in self._sources.items()}

    @property
    def key(self) -> Mapping[str, Any]:
        """All that a rendered text depends on besides the tokenizer, as JSON values."""
        return {
            "kwargs": self.chat.kwargs,
            "left_out": self.chat.left_out,
            "date": today(self.chat).isoformat() if self.has_date else None,
        }

    def render(
        self,
        messages: Sequence[Message],
        row: Mapping[str, Any] | None = None,
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """What the template writes.

        Args:
          messages: the conversation, or its beginning.
          row: whose `tools` and `template_kwargs` go with them.
          add_generation_prompt: whether to ask for an answer at the end.

        Raises:
          TemplateRowError: the template refuses it, or fails.
        """
        source, tools, kwargs = self._call(row)
        return _attempt(
            lambda: str(
                self.tokenizer.apply_chat_template(
                    list(messages),
                    tools=tools,
                    chat_template=source,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    **kwargs,
                )
            )
        )

    def marked(
        self, messages: Sequence[Message], row: Mapping[str, Any]
    ) -> list[tuple[int, int]] | None:
        """Where `{% generation %}` marks what an assistant wrote, in characters of `render`'s text;
        None if the template has no such marks.
        """
        source, tools, kwargs = self._call(row)
        if not _MARKS.search(source):
            return None
        _, found = _attempt(
            lambda: render_jinja_template(
                [list(messages)],
                tools=tools,
                chat_template=source,
                return_assistant_tokens_mask=True,
                **{**self.tokenizer.special_tokens_map, **kwargs},
            )
        )
        return [(int(start), int(end)) for start, end in found[0]]

    def _call(self, row: Mapping[str, Any] | None) -> tuple[str, list[Any] | None, dict[str, Any]]:
        tools = list(row["tools"]) if row and row["tools"] else None
        name = "tool_use" if tools and "tool_use" in self._pinned else "default"
        kwargs = {**self.chat.kwargs, **(row["template_kwargs"] if row else {})}
        return self._pinned[name], tools, kwargs

    @property
    def has_date(self) -> bool:
        """Whether the template writes the date of the day."""
        return any("strftime_now" in source for source in self._sources.values())

    @cached_property
    def sample(self) -> str:
        """A short conversation and the opening of the next answer."""
        answer: Message = {"role": "assistant", "content": PROBE}
        return self.render([_QUESTION, answer, _QUESTION], add_generation_prompt=True)

    @cached_property
    def opening(self) -> str:
        """What the template writes to ask for an answer."""
        asking = self.render([_QUESTION], add_generation_prompt=True)
        return asking.removeprefix(self.render([_QUESTION]))

    @cached_property
    def ends(self) -> TurnEnds:
        """What ends an assistant's turn.

        Raises:
          ValueError: the template cannot write a question and its answer.
        """
        answer: Message = {"role": "assistant", "content": PROBE}
        try:
            tail = _tail(self.render([_QUESTION, answer]))
        except RowError as error:
            raise ValueError(f"a question and its answer: {error}") from error
        first = self._special(tail)
        if first is None:
            text = (tail or "").rstrip()
            return TurnEnds(text, (text,) if text else (), ())
        call = self._tail_of([_QUESTION, _called()], {"tools": [_TOOL], "template_kwargs": {}})
        middle = self._tail_of([_QUESTION, answer, _QUESTION])
        last = [first, self._special(call)]
        text = (tail or "")[: (tail or "").index(first) + len(first)]
        return TurnEnds(text, _distinct(last), _distinct([self._special(middle)]))

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Ids of the tokens that end an answer or a call; none where the template ends turns with
        words, or with nothing.
        """
        ids = [self.tokenizer.convert_tokens_to_ids(end) for end in self.ends.last]
        known = self.tokenizer.added_tokens_decoder
        return tuple(number for number in ids if isinstance(number, int) and number in known)

    def without_end(self, answer: str) -> str:
        """An answer without what ends its turn."""
        for end in (self.ends.text, *self.ends.last, *self.ends.middle):
            if end and answer.endswith(end):
                return answer.removesuffix(end)
        return answer

    def _tail_of(self, messages: list[Message], row: Mapping[str, Any] | None = None) -> str | None:
        try:
            return _tail(self.render(messages, row))
        except RowError:  # a template need not know calls of tools
            return None

    def _special(self, tail: str | None) -> str | None:
        """The first special token of a text."""
        added = self.tokenizer.added_tokens_decoder.values()
        special = [str(token) for token in added if token.special] or [str(t) for t in added]
        places = [(tail.index(s), -len(s), s) for s in special if s and s in tail] if tail else []
        return min(places)[2] if places else None


def template_sources(tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """A tokenizer's chat templates by name; a single one is 'default'. There may be none.

    Raises:
      ValueError: several, but none is called 'default'.
    """
    template = tokenizer.chat_template
    if not template:
        return {}
    if isinstance(template, str):
        return {"default": template}
    if "default" not in template:
        raise ValueError(
            f"the tokenizer has several chat templates and none is called 'default'; choose one "
            f"with data.chat.template: {', '.join(template)}"
        )
    return dict(template)


def today(chat: ChatConfig) -> datetime.date:
    """The date that templates write."""
    return datetime.date.today() if chat.date is None else datetime.date.fromisoformat(chat.date)


def _pinned(source: str, chat: ChatConfig) -> str:
    """The template with the date in place of each call that asks for it."""
    date = today(chat)
    pinned = _NOW.sub(lambda found: json.dumps(date.strftime(found[2])), source)
    if re.search(r"strftime_now\s*\(", pinned):
        raise ValueError(
            "the chat template asks for the date in a format that it does not write out, so that "
            "prompts would change from day to day; valid: data.chat.template with a copy of it "
            "that does"
        )
    return pinned


def _called() -> Message:
    call = {"id": "call00000", "type": "function", "function": _CALL}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _tail(text: str) -> str | None:
    """What follows the probe."""
    return text.rpartition(PROBE)[2] if PROBE in text else None


def _distinct(texts: Sequence[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text is not None))


def _attempt(render: Callable[[], Result]) -> Result:
    """Templates are programs: whatever they raise is about the row that they were given."""
    try:
        return render()
    except TemplateError as error:
        raise TemplateRowError(f"the chat template refuses the conversation: {error}") from error
    except Exception as error:
        raise TemplateRowError(
            f"the chat template fails at the conversation: {type(error).__name__}: {error}"
        ) from error
