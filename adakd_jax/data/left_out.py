"""Whether the text of a template has all that an assistant's message and a row's tools say."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adakd_jax.data.messages import Message

# Names under which messages keep their thought; a template reads one of them.
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")


def left_out(message: Message, written: str) -> str | None:
    """Names the first part of an assistant's message that a text lacks; None if it has all.

    White space does not count: templates put thoughts and calls on lines of their own.
    """
    text = _squashed(written)
    for name in ("content", *_THOUGHTS):
        if not _stands(message.get(name), text):
            return name
    for call in message.get("tool_calls", ()):
        function = call.get("function", call)
        if not all(
            _stands(word, text) for word in _words([function["name"], _arguments(function)])
        ):
            return "tool_calls"
    return None


def unwritten_tool(tools: Sequence[Mapping[str, Any]], written: str) -> str | None:
    """The name of the first tool that a text does not mention."""
    for tool in tools:
        name = tool.get("function", tool).get("name")
        if isinstance(name, str) and name not in written:
            return name
    return None


def _arguments(function: Mapping[str, Any]) -> Any:
    return function.get("arguments", {})


def _words(value: Any) -> Iterator[str]:
    """Every text in a nested value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield name
            yield from _words(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _words(item)


def _stands(words: Any, text: str) -> bool:
    """Whether words stand in a text, as they are or as JSON writes them."""
    if not isinstance(words, str):
        return True
    forms = (words, *(json.dumps(words, ensure_ascii=ascii)[1:-1] for ascii in (False, True)))
    return any(_squashed(form) in text for form in forms)


def _squashed(text: str) -> str:
    return "".join(text.split())
