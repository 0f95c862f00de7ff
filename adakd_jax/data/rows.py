"""One schema for rows from anywhere, and what makes a row malformed."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from adakd_jax.config.data import Columns
from adakd_jax.data.shapes import recognise

_NAME_SHOWN, _NAMES_SHOWN = 60, 30
ROLES = ("system", "user", "assistant", "tool")


class RowError(ValueError):
    """Why one row cannot be used; the caller adds where it stands.

    `part` is the field of `data.columns` that could say where the row keeps what it seems to lack.
    """

    def __init__(self, reason: str, part: str | None = None):
        """Takes the reason, in words that name the column."""
        super().__init__(reason)
        self.part = part


class Message(TypedDict):
    """One turn of a conversation; `role` is one of `ROLES`."""

    role: str
    content: str


class Row(TypedDict):
    """What every source yields; parts that a row does not have are empty.

    `outputs` are the accepted answers, the first of them the one to train on; `cut` says that a
    limit of length ended the answer (or the last one, or the text); `origin` is 'file:line'.
    """

    instruction: str
    input: str
    outputs: list[str]
    messages: list[Message]
    text: str
    cut: bool
    origin: str


def normalize_row(raw: Any, columns: Columns, *, origin: str, require_output: bool = True) -> Row:
    """Brings one parsed row into the common schema.

    Its parts are found by `recognise`. A row with an instruction or messages needs an answer there,
    even where it has a text too; plain text is what has neither.

    Args:
      raw: what the file holds: a mapping from column to value.
      columns: the names under which the row keeps its parts.
      origin: where the row stands, 'file:line'.
      require_output: whether an instruction without an answer, or a conversation without an
        assistant turn, is malformed; prompts that are only to be answered have none.

    Returns:
      The row.

    Raises:
      RowError: the row is malformed; says why and what would be valid.
    """
    if not isinstance(raw, Mapping):
        raise RowError(f"expected an object with named columns, found {_kind(raw)}")
    raw, columns, _, answered = recognise(raw, columns)
    row = Row(
        instruction=_text(raw, columns.instruction),
        input=_text(raw, columns.input),
        outputs=_texts(raw, columns.output),
        messages=_messages(raw.get(columns.messages), columns.messages),
        text=_text(raw, columns.text),
        cut=raw.get(columns.finish) == "length",
        origin=origin,
    )
    if not (row["instruction"] or row["messages"] or row["text"]):
        raise RowError(*_nothing_to_use(raw, columns))
    if not require_output:
        return row
    if not answered:
        raise RowError("column 'completion' has no assistant turn")
    if row["messages"]:
        if all(message["role"] != "assistant" for message in row["messages"]):
            raise RowError(f"column {columns.messages!r} has no assistant turn")
    elif row["instruction"] and not row["outputs"]:
        if columns.output in raw:
            raise RowError(f"column {columns.output!r} is empty; {_found(raw)}")
        raise RowError(f"column {columns.output!r} is missing; {_found(raw)}", "output")
    return row


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _found(raw: Mapping) -> str:
    names = [repr(name) for name in raw]
    shown = [name if len(name) <= _NAME_SHOWN else f"{name[:_NAME_SHOWN]}…" for name in names]
    more = f" and {len(shown) - _NAMES_SHOWN} more" if len(shown) > _NAMES_SHOWN else ""
    return f"columns found: {', '.join(shown[:_NAMES_SHOWN]) or 'none'}{more}"


def _nothing_to_use(raw: Mapping, columns: Columns) -> tuple[str, str | None]:
    wanted = (columns.instruction, columns.messages, columns.text)
    empty = [name for name in wanted if name in raw]
    if empty:
        return f"column {empty[0]!r} is empty", None
    names = ", ".join(map(repr, wanted))
    return f"has none of the columns {names}; {_found(raw)}", "instruction"


def _text(raw: Mapping, column: str) -> str:
    value = raw.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowError(f"column {column!r} must be a text, found {_kind(value)}")
    return _unicode(value, f"column {column!r}") if value.strip() else ""


def _texts(raw: Mapping, column: str) -> list[str]:
    value = raw.get(column)
    if value is None:
        return []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise RowError(f"column {column!r} must be a text or a list of texts, found {_kind(value)}")
    return [_unicode(text, f"column {column!r}") for text in value if text.strip()]


def _messages(value: Any, column: str) -> list[Message]:
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RowError(
            f"column {column!r} must be a list of {{role, content}}, found {_kind(value)}"
        )
    return [_message(message, f"{column}[{index}]") for index, message in enumerate(value)]


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, Mapping):
        raise RowError(f"{where} must be an object with role and content, found {_kind(value)}")
    role, content = value.get("role"), value.get("content")
    if role not in ROLES:
        raise RowError(f"{where}.role is {role!r}; valid: {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise RowError(f"{where}.content must be a text, found {_kind(content)}")
    return Message(role=role, content=_unicode(content, f"{where}.content"))


def _unicode(text: str, where: str) -> str:
    """JSON may hold half of a surrogate pair, which no tokenizer and no file takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"{where} is not valid Unicode at character {error.start}") from error
    return text
