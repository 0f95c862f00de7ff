"""One schema for rows from anywhere, and what makes a row malformed."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from adakd_jax.config.data import Columns
from adakd_jax.data.messages import (
    Message,
    RowError,
    is_learned,
    kind_of,
    read_messages,
    read_template_kwargs,
    read_tools,
    unicode_text,
)
from adakd_jax.data.shapes import recognise

_NAME_SHOWN, _NAMES_SHOWN = 60, 30


class Row(TypedDict):
    """What every source yields; parts that a row does not have are empty.

    `outputs` are the accepted answers, the first of them the one to train on; `tools` and
    `template_kwargs` are what the chat template is given besides the messages; `cut` says that a
    limit of length ended the answer (or the last one, or the text); `generated` that a model wrote
    it, right after what the template writes to ask for an answer; `origin` is 'file:line'.
    """

    instruction: str
    input: str
    outputs: list[str]
    messages: list[Message]
    tools: list[dict[str, Any]]
    template_kwargs: dict[str, Any]
    text: str
    cut: bool
    generated: bool
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
        raise RowError(f"expected an object with named columns, found {kind_of(raw)}")
    raw, columns, _, answered = recognise(raw, columns)
    row = Row(
        instruction=_text(raw, columns.instruction),
        input=_text(raw, columns.input),
        outputs=_texts(raw, columns.output),
        messages=read_messages(raw.get(columns.messages), columns.messages),
        tools=read_tools(raw.get(columns.tools), columns.tools),
        template_kwargs=read_template_kwargs(
            raw.get(columns.template_kwargs), columns.template_kwargs
        ),
        text=_text(raw, columns.text),
        cut=raw.get(columns.finish) == "length",
        generated=raw.get(columns.finish) is not None,
        origin=origin,
    )
    if not (row["instruction"] or row["messages"] or row["text"]):
        raise RowError(*_nothing_to_use(raw, columns))
    if not require_output:
        return row
    if not answered:
        raise RowError("column 'completion' has no assistant turn")
    if row["messages"]:
        if not any(map(is_learned, row["messages"])):
            raise RowError(f"column {columns.messages!r} has no assistant turn to learn from")
    elif row["instruction"] and not row["outputs"]:
        if columns.output in raw:
            raise RowError(f"column {columns.output!r} is empty; {_found(raw)}")
        raise RowError(f"column {columns.output!r} is missing; {_found(raw)}", "output")
    return row


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
        raise RowError(f"column {column!r} must be a text, found {kind_of(value)}")
    return unicode_text(value, f"column {column!r}") if value.strip() else ""


def _texts(raw: Mapping, column: str) -> list[str]:
    value = raw.get(column)
    if value is None:
        return []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise RowError(
            f"column {column!r} must be a text or a list of texts, found {kind_of(value)}"
        )
    return [unicode_text(text, f"column {column!r}") for text in value if text.strip()]
