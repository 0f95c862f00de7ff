import pytest

from adakd_jax.config.data import Columns
from adakd_jax.data.rows import RowError, normalize_row


def normalize(raw, columns=None, **options):
    return normalize_row(raw, columns or Columns(), origin="f:1", **options)


def test_one_answer_and_several_come_out_alike():
    assert normalize({"instruction": "a", "output": "b"})["outputs"] == ["b"]
    assert normalize({"instruction": "a", "output": ["b", "c", " "]})["outputs"] == ["b", "c"]


def test_columns_have_the_names_that_are_given():
    columns = Columns(instruction="question", input="context", output="response")
    row = normalize({"question": "q", "context": None, "response": "r", "id": 3}, columns)
    assert (row["instruction"], row["input"], row["outputs"]) == ("q", "", ["r"])


@pytest.mark.parametrize(
    ("finish", "cut"),
    [
        ({}, False),
        ({"finish": "eos"}, False),
        ({"finish": None}, False),
        ({"finish": "length"}, True),
    ],
)
def test_an_answer_that_length_ended_is_cut(finish, cut):
    assert normalize({"instruction": "a", "output": "b"} | finish)["cut"] is cut
    renamed = {"instruction": "a", "output": "b", "ended_by": finish.get("finish")}
    assert normalize(renamed, Columns(finish="ended_by"))["cut"] is cut
    assert normalize(renamed)["cut"] is False


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ([1], "expected an object with named columns, found list"),
        (None, "found null"),
        ({"task": "q"}, "none of the columns 'instruction', 'messages', 'text'.*'task'"),
        ({"question": "q"}, "column 'output' is missing; columns found: 'question'"),
        ({"instruction": " ", "output": "a"}, "column 'instruction' is empty"),
        ({"instruction": 5, "output": "a"}, "column 'instruction' must be a text, found int"),
        ({"instruction": "q"}, "column 'output' is missing"),
        ({"instruction": "q", "output": ""}, "column 'output' is empty"),
        ({"instruction": "q", "output": ["a", 1]}, "text or a list of texts, found list"),
        (
            {"instruction": "q\ud800", "output": "a"},
            "'instruction' is not valid Unicode at character 1",
        ),
        ({"messages": "hello"}, "column 'messages' is a text, but not of JSON"),
        ({"messages": 5}, "'messages' must be a list of {role, content}, found int"),
        ({"messages": ["hello"]}, r"messages\[0\] must be an object"),
        ({"messages": [{"role": "bot", "content": "x"}]}, r"messages\[0\].role is 'bot'; valid"),
        ({"messages": [{"role": "user", "content": None}]}, r"\[0\].content must be a text"),
        ({"messages": [{"role": "user", "content": "q"}]}, "no assistant turn"),
    ],
)
def test_a_malformed_row_says_why(raw, reason):
    with pytest.raises(RowError, match=reason):
        normalize(raw)


def test_prompts_need_no_answer_where_none_is_asked_for():
    assert normalize({"instruction": "q"}, require_output=False)["outputs"] == []
    messages = [{"role": "user", "content": "q"}]
    assert normalize({"messages": messages}, require_output=False)["messages"] == messages
