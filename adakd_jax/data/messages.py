"""Conversations as rows hold them: every message checked, and none of its fields lost."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


class RowError(ValueError):
    """Why one row cannot be used; the caller adds where it stands.

    `part` is the field of `data.columns` that could say where the row keeps what it seems to lack.
    """

    def __init__(self, reason: str, part: str | None = None):
        """Takes the reason, in words that name the column."""
        super().__init__(reason)
        self.part = part


# What the templates of published models know; which of them one takes, it says itself.
ROLES = (
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
    "ipython",
    "environment",
    "observation",
)

# One turn of a conversation: `role`, `content` (a text, "" where a call stands alone), and whatever
# else the chat template reads, such as `reasoning_content`, `tool_calls`, `name`. `weight` 0 marks
# an assistant turn that is context, not learned.
Message = dict[str, Any]


def read_messages(value: Any, column: str) -> list[Message]:
    """Checks a conversation.

    Args:
      value: a list of mappings, JSON text of one, or None.
      column: where it stands, for messages.

    Returns:
      The messages with all fields that hold something; none of them for None. A content in parts is
      one text, and the arguments of tool calls are objects, as servers give them to templates.

    Raises:
      RowError: says which message, and what would be valid.
    """
    value = _from_text(value, column)
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RowError(
            f"column {column!r} must be a list of {{role, content}}, found {kind_of(value)}"
        )
    return [_message(message, f"{column}[{index}]") for index, message in enumerate(value)]


def read_tools(value: Any, column: str) -> list[dict[str, Any]]:
    """Checks the tools that a conversation may call: a list of JSON schemas, or JSON text of one.

    Raises:
      RowError: they are something else.
    """
    value = _from_text(value, column)
    if value is None:
        return []
    if not isinstance(value, Sequence) or not all(isinstance(tool, Mapping) for tool in value):
        raise RowError(f"column {column!r} must be a list of JSON schemas, found {kind_of(value)}")
    return [dict(tool) for tool in value]


def read_template_kwargs(value: Any, column: str) -> dict[str, Any]:
    """Checks what a row tells the chat template besides its messages, e.g. `enable_thinking`.

    Raises:
      RowError: it is no mapping.
    """
    value = _from_text(value, column)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RowError(f"column {column!r} must be a mapping, found {kind_of(value)}")
    return {name: item for name, item in value.items() if item is not None}


def is_learned(message: Message) -> bool:
    """Whether a message is an answer to learn from."""
    return message["role"] == "assistant" and message.get("weight", 1) != 0


def kind_of(value: Any) -> str:
    """The type of a value as messages name it."""
    return "null" if value is None else type(value).__name__


def unicode_text(text: str, where: str) -> str:
    """Refuses half of a surrogate pair: JSON may hold one, but no tokenizer and no file takes it.

    Raises:
      RowError: there is one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"{where} is not valid Unicode at character {error.start}") from error
    return text


def _from_text(value: Any, column: str) -> Any:
    """What JSON text stands for; data sets keep nested values so where a column has one type."""
    if not isinstance(value, str) or not value.strip():
        return None if value == "" else value
    try:
        return json.loads(value)
    except ValueError as error:
        raise RowError(f"column {column!r} is a text, but not of JSON: {error}") from error


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, Mapping):
        raise RowError(f"{where} must be an object with role and content, found {kind_of(value)}")
    role = value.get("role")
    if role not in ROLES:
        raise RowError(f"{where}.role is {role!r}; valid: {', '.join(ROLES)}")
    # A column of objects gives every message every field: null means that it has it not.
    message = {name: field for name, field in value.items() if field is not None}
    calls = _calls(message.pop("tool_calls", None), where)
    message["content"] = _content(value.get("content"), where, may_lack=bool(calls))
    if calls:
        message["tool_calls"] = calls
    _check_weight(message, where)
    _check_text(message, where)
    return message


def _content(value: Any, where: str, may_lack: bool) -> str:
    if value is None and may_lack:
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "".join(_part(part, f"{where}.content[{n}]") for n, part in enumerate(value))
    if not isinstance(value, str):
        raise RowError(f"{where}.content must be a text, found {kind_of(value)}")
    return value


def _part(part: Any, where: str) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type") if isinstance(part, Mapping) else kind_of(part)
    raise RowError(f"{where} is of type {kind!r}; valid: text")


def _calls(value: Any, where: str) -> list[Any]:
    if not value:
        return []
    if not isinstance(value, Sequence) or not all(isinstance(call, Mapping) for call in value):
        raise RowError(f"{where}.tool_calls must be a list of objects, found {kind_of(value)}")
    return [_call(call, f"{where}.tool_calls[{n}]") for n, call in enumerate(value)]


def _call(call: Mapping, where: str) -> dict[str, Any]:
    call = {name: field for name, field in call.items() if field is not None}
    function = call.get("function", call)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RowError(f"{where} needs a function with a name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str) and arguments.strip():
        try:
            arguments = json.loads(arguments)
        except ValueError as error:
            raise RowError(f"{where}: its arguments are a text, but not of JSON: {error}") from None
    function = {**function, "arguments": arguments or {}}
    return {**call, "function": function} if "function" in call else function


def _check_weight(message: Message, where: str) -> None:
    weight = message.get("weight", 1)
    if weight not in (0, 1):
        raise RowError(f"{where}.weight is {weight!r}; valid: 0 (context only) or 1 (learned)")


def _check_text(value: Any, where: str) -> None:
    """Every text of a message, wherever it stands, is valid Unicode."""
    if isinstance(value, str):
        unicode_text(value, where)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _check_text(item, f"{where}.{name}")
    elif isinstance(value, Sequence):
        for index, item in enumerate(value):
            _check_text(item, f"{where}[{index}]")
