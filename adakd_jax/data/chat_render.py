"""What a tokenizer's chat template writes."""

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from adakd_jax.config.chat import ChatConfig
from adakd_jax.data.messages import Message, RowError

Result = TypeVar("Result")
# Stands for a turn's words when asking the template what it writes around them. Private characters:
# no template trims or splits them, and no text begins or ends with them.
PROBE = "\ue000probe\ue000"
QUESTION = {"role": "user", "content": "question"}
_NOW = re.compile(r"""strftime_now\(\s*(?:format\s*=\s*)?(["'])(.*?)\1\s*\)""")
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


class TemplateRowError(RowError):
    """The template cannot write a row as it is to be learned; unlike a row that is merely too long,
    such a row is malformed.
    """


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
        try:
            return self._rendered(messages, row, add_generation_prompt)
        except TemplateRowError:
            # Some templates join the arguments of calls as text, others write objects as JSON.
            as_text = [_with_arguments_as_text(message) for message in messages]
            if as_text == list(messages):
                raise
            return self._rendered(as_text, row, add_generation_prompt)

    def _rendered(
        self,
        messages: Sequence[Message],
        row: Mapping[str, Any] | None,
        add_generation_prompt: bool,
    ) -> str:
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

    def token_start(self, text: str, place: int) -> int:
        """Where the added token begins that reaches over a place in a text; else the place itself:
        two texts may part inside of `<|a|>` and `<|b|>`, but no model writes half a token.
        """
        for token in map(str, self.tokenizer.added_tokens_decoder.values()):
            begin = text.find(token, max(0, place - len(token) + 1), place + len(token) - 1)
            if 0 <= begin < place:
                return begin
        return place

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
        return self.render([QUESTION, answer, QUESTION], add_generation_prompt=True)

    @cached_property
    def opening(self) -> str:
        """What the template writes to ask for an answer."""
        asking = self.render([QUESTION], add_generation_prompt=True)
        return asking.removeprefix(self.render([QUESTION]))


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


def _with_arguments_as_text(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    functions = [call.get("function", call) for call in calls]
    texts = [
        json.dumps(function.get("arguments", {}), ensure_ascii=False) for function in functions
    ]
    functions = [{**f, "arguments": text} for f, text in zip(functions, texts, strict=True)]
    written = [
        {**call, "function": function} if "function" in call else function
        for call, function in zip(calls, functions, strict=True)
    ]
    return {**message, "tool_calls": written}


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
