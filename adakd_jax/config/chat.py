"""How conversations become text."""

import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from adakd_jax.config.stage import Stage

_DAY = r"^\d{4}-\d{2}-\d{2}$"


def _a_day(date: str) -> str:
    datetime.date.fromisoformat(date)
    return date


class ChatConfig(Stage):
    """How conversations become text, under `template: chat`."""

    template: str | None = Field(
        default=None,
        description="the chat template: a .jinja file, 'teacher', 'student', or the name of one of "
        "several; null: the student's own, or the teacher's if the student has none",
    )
    kwargs: dict[str, Any] = Field(
        default={},
        description="what the template is told besides the messages, e.g. "
        '{"enable_thinking": false}; a row\'s own chat_template_kwargs go before',
    )
    date: Annotated[str, Field(pattern=_DAY), AfterValidator(_a_day)] | None = Field(
        default=None,
        description="today's date in templates that write it, YYYY-MM-DD; null: that of a run's "
        "first start",
    )
    left_out: Literal["fail", "verbatim", "ignore"] = Field(
        default="fail",
        description="an answer that the template writes without a part of it, such as its thought. "
        "fail: the row is malformed; verbatim: a last answer is learned as it stands, right after "
        "what the template writes to ask for it; ignore: what the template writes is learned",
    )
