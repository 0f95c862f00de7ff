import json

import pytest

from adakd_jax.config.data import Columns
from adakd_jax.data.rows import RowError, normalize_row

ASK = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": "1"}}}


def messages(*turns, **raw):
    return normalize_row({"messages": list(turns), **raw}, Columns(), origin="f:1")["messages"]


def test_a_message_keeps_every_field_that_holds_something():
    thought = {**ANSWER, "reasoning_content": "so", "name": "bot", "weight": 1, "audio": None}
    assert messages(ASK, thought) == [
        ASK,
        {**ANSWER, "reasoning_content": "so", "name": "bot", "weight": 1},
    ]


def test_a_call_needs_no_content_and_its_arguments_become_an_object():
    written = {**CALL["function"], "arguments": json.dumps(CALL["function"]["arguments"])}
    call = {"role": "assistant", "content": None, "tool_calls": [{**CALL, "function": written}]}
    result = {"role": "tool", "content": "4 degrees", "tool_call_id": "1"}
    read = messages(ASK, call, result, ANSWER)
    assert read[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert read[2] == result
    bare = {"role": "assistant", "content": "", "tool_calls": [CALL["function"]]}
    assert messages(ASK, bare)[1] == bare


def test_a_content_in_parts_is_one_text():
    parts = [{"type": "text", "text": "What "}, {"type": "text", "text": "now?"}]
    assert messages({"role": "user", "content": parts}, ANSWER)[0]["content"] == "What now?"


def test_messages_tools_and_kwargs_may_be_json_text():
    raw = {
        "messages": json.dumps([ASK, ANSWER]),
        "tools": json.dumps([{"name": "f"}]),
        "chat_template_kwargs": json.dumps({"enable_thinking": False}),
    }
    row = normalize_row(raw, Columns(), origin="f:1")
    assert row["messages"] == [ASK, ANSWER]
    assert row["tools"] == [{"name": "f"}]
    assert row["template_kwargs"] == {"enable_thinking": False}
    plain = normalize_row({"messages": [ASK, ANSWER]}, Columns(), origin="f:1")
    assert plain["tools"] == [] and plain["template_kwargs"] == {}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"messages": [ASK, {**ANSWER, "weight": 0.5}]}, r"\[1\].weight is 0.5; valid: 0 .*or 1"),
        ({"messages": [ASK, {**ANSWER, "weight": 0}]}, "no assistant turn to learn from"),
        ({"messages": [ASK, {**ANSWER, "tool_calls": "f"}]}, "tool_calls must be a list"),
        ({"messages": [ASK, {**ANSWER, "tool_calls": [{"id": 1}]}]}, "needs a function with a"),
        (
            {"messages": [ASK, {**ANSWER, "tool_calls": [{"name": "f", "arguments": "{"}]}]},
            "arguments are a text, but not of JSON",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]},
            r"\[0\].content\[0\] is of type 'image'; valid: text",
        ),
        ({"messages": [ASK, {**ANSWER, "thinking": "\ud800"}]}, "thinking is not valid Unicode"),
        ({"messages": [ASK, ANSWER], "tools": ["f"]}, "'tools' must be a list of JSON schemas"),
        ({"messages": [ASK, ANSWER], "chat_template_kwargs": [1]}, "must be a mapping, found list"),
    ],
)
def test_what_a_conversation_may_not_be(raw, reason):
    with pytest.raises(RowError, match=reason):
        normalize_row(raw, Columns(), origin="f:1")
