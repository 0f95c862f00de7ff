"""Rows are recognised by shape, in words that say so, and what the settings name comes first."""

import json

import pytest

from adakd_jax.config.data import Columns
from adakd_jax.data.rows import RowError, normalize_row
from adakd_jax.data.shapes import recognise
from adakd_jax.data.sources import OWN_ROWS, EmptyDataError, MalformedRowsError
from adakd_jax.data.tokenize import encode_example
from adakd_jax.eval.judge.pairs import read_pairs

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def normalize(raw, columns=None, **options):
    return normalize_row(raw, columns or Columns(), origin="f:1", **options)


def parts(raw, columns=None, **options):
    row = normalize(raw, columns, **options)
    return row["instruction"], row["input"], row["outputs"]


def talk(raw, columns=None, **options):
    messages = normalize(raw, columns, **options)["messages"]
    return [(turn["role"], turn["content"]) for turn in messages]


@pytest.mark.parametrize(
    ("raw", "expected", "told"),
    [
        (
            {"prompt": "q", "completion": "a"},
            ("q", "", ["a"]),
            "'prompt', output from 'completion'",
        ),
        ({"prompt": "q", "response": "a"}, ("q", "", ["a"]), "'prompt', output from 'response'"),
        ({"prompt": "q", "output": "a"}, ("q", "", ["a"]), "instruction from 'prompt'"),
        ({"question": "q", "answer": "a"}, ("q", "", ["a"]), "'question', output from 'answer'"),
        ({"query": "q", "response": ["a", "b"]}, ("q", "", ["a", "b"]), "from 'query'"),
        ({"input": "q", "output": "a"}, ("q", "", ["a"]), "instruction from 'input'"),
        ({"instruction": "q", "response": "a"}, ("q", "", ["a"]), "output from 'response'"),
        (
            {"instruction": "q", "context": "c", "response": "a", "category": "x"},
            ("q", "c", ["a"]),
            "input from 'context', output from 'response'",
        ),
        ({"instruction": "", "prompt": "q", "completion": "a"}, ("q", "", ["a"]), "'prompt'"),
        ({"instruction": "q", "input": "i", "output": "a", "prompt": "p"}, ("q", "i", ["a"]), None),
    ],
)
def test_a_prompt_and_its_answer(raw, expected, told):
    assert parts(raw) == expected
    found = recognise(raw, Columns()).told
    assert found is None if told is None else told in found


SHARE_GPT = [
    {"from": "system", "value": "s"},
    {"from": "human", "value": "q"},
    {"from": "gpt", "value": "a", "weight": 1},
    {"from": "human", "value": "r"},
    {"from": "gpt", "value": "b"},
]


def test_share_gpt():
    raw = {"id": "x", "conversations": SHARE_GPT, "tools": "[]"}
    expected = [("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r")]
    assert talk(raw) == [*expected, ("assistant", "b")]
    shape = recognise(raw, Columns())
    assert shape.told == "messages from 'conversations' of {from, value}"
    assert shape.row["conversations"][2]["weight"] == 1 and shape.row["tools"] == "[]"
    assert talk({"conversations": json.dumps(SHARE_GPT[1:3])}) == [
        ("user", "q"),
        ("assistant", "a"),
    ]
    apart = {"system": "s", "conversations": SHARE_GPT[1:3]}
    assert talk(apart) == [("system", "s"), ("user", "q"), ("assistant", "a")]
    assert talk({"system": "t", "conversations": SHARE_GPT})[0] == ("system", "s")
    assert talk({"talk": SHARE_GPT}, Columns(messages="talk"))[1:3] == expected[1:3]


def test_calls_of_share_gpt_become_calls_of_a_message():
    call = {"name": "look", "arguments": {"at": "sky"}}
    turns = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": json.dumps(call)},
        {"from": "observation", "value": "blue"},
        {"from": "gpt", "value": "It is blue."},
    ]
    found = recognise({"conversations": turns}, Columns()).row["conversations"]
    assert found[1]["role"] == "assistant"
    assert found[1]["tool_calls"] == [{"type": "function", "function": call}]
    assert found[2] == {"role": "tool", "content": "blue"}
    words = [{"from": "function_call", "value": "look at the sky"}]
    found = recognise({"conversations": words}, Columns()).row["conversations"]
    assert found == [{"role": "assistant", "content": "look at the sky"}]


def test_prompt_and_completion_of_messages_learn_the_completion_only():
    shown = [*TURNS, {"role": "user", "content": "r"}]
    raw = {"prompt": shown, "completion": [{"role": "assistant", "content": "b"}]}
    assert talk(raw) == [*[(t["role"], t["content"]) for t in shown], ("assistant", "b")]
    shape = recognise(raw, Columns())
    turns = shape.row[shape.columns.messages]
    assert [turn.get("weight") for turn in turns] == [None, 0, None, None]
    assert "the completion is learned" in shape.told
    assert talk({"prompt": "q", "completion": TURNS[1:]}) == [("user", "q"), ("assistant", "a")]
    assert talk({"prompt": TURNS[:1], "completion": "a"}) == [("user", "q"), ("assistant", "a")]
    for empty in ([], "", None):
        with pytest.raises(RowError, match="column 'completion' has no assistant turn"):
            normalize({"prompt": shown, "completion": empty})
    assert talk({"prompt": shown}, require_output=False)[-1] == ("user", "r")


def test_messages_as_json_text():
    assert talk({"messages": json.dumps(TURNS)}) == [("user", "q"), ("assistant", "a")]
    assert recognise({"messages": json.dumps(TURNS)}, Columns()).told == (
        "messages from 'messages' as JSON text"
    )
    assert recognise({"messages": TURNS}, Columns()).told is None
    with pytest.raises(RowError, match="'messages' is a text, but not of JSON"):
        normalize({"messages": "[{"})


def test_messages_come_before_all_else():
    both = {"messages": TURNS, "prompt": "p", "prompt_id": "1", "conversations": SHARE_GPT}
    assert talk(both) == [("user", "q"), ("assistant", "a")]
    assert parts({**both, "messages": []}) == ("", "", [])
    assert len(talk({**both, "messages": []})) == len(SHARE_GPT)


def test_nested_columns():
    raw = {
        "instruction": "q",
        "instances": [{"input": "i", "output": "a"}],
        "answers": {"text": ["b", "c"]},
        "a.b": "flat",
        "as_text": json.dumps({"x": [{"y": "deep"}]}),
    }
    nested = Columns(input="instances.0.input", output="instances.0.output")
    assert parts(raw, nested) == ("q", "i", ["a"])
    assert parts(raw, Columns(output="answers.text")) == ("q", "", ["b", "c"])
    assert parts(raw, Columns(output="a.b")) == ("q", "", ["flat"])
    assert parts(raw, Columns(output="as_text.x.0.y")) == ("q", "", ["deep"])
    for absent in ("instances.1.output", "instances.x", "instruction.0", "none.at.all"):
        with pytest.raises(RowError, match=f"column '{absent}' is missing"):
            normalize(raw, Columns(output=absent))


def test_columns_that_are_named_override_the_shape():
    raw = {"prompt": "q", "completion": "a", "question": "other", "chosen": "c"}
    assert parts(raw, Columns(instruction="question")) == ("other", "", ["a"])
    assert parts(raw, Columns(output="chosen")) == ("q", "", ["c"])
    with pytest.raises(RowError, match="column 'gold' is missing"):
        normalize(raw, Columns(output="gold"))
    with pytest.raises(RowError, match="none of the columns 'task'"):
        normalize(raw, Columns(instruction="task"))
    assert parts(
        {"conversations": SHARE_GPT, "q": "q", "a": "a"}, Columns(instruction="q", output="a")
    ) == (
        *("q", ""),
        ["a"],
    )


@pytest.mark.parametrize("output", ["", " ", None, [], [""]])
def test_an_empty_answer_is_one_whatever_else_is_there(output):
    beside = {"text": "Below is …", "response": "other", "answer": "other"}
    for raw in (
        {"instruction": "q", "input": "", "output": output, **beside},
        {"prompt": "q", "completion": output, **beside},
    ):
        with pytest.raises(RowError, match=r"column '(output|completion)' is empty"):
            normalize(raw)
        assert parts(raw, require_output=False) == ("q", "", [])
    with pytest.raises(RowError, match="column 'output' is missing"):
        normalize({"instruction": "q", "text": "Below is …"})
    with pytest.raises(RowError, match="column 'messages' has no assistant turn"):
        normalize({"messages": TURNS[:1], "text": "Below is …"})
    assert normalize({"text": "Below is …", "output": output})["text"] == "Below is …"
    assert normalize({"text": "Below is …", "prompt": "a note"})["text"] == "Below is …"


def test_prompt_and_completion_without_a_template_are_one_text(tokenizer):
    row = normalize({"prompt": "The sky is", "completion": " blue."})
    example = encode_example(row, "text", tokenizer, 64, 128)
    assert tokenizer.decode(example.tokens) == "The sky is blue.<|end|>"


def test_the_report_says_what_was_recognised(write_lines, open_file):
    for _ in range(2):  # the second time from the prepared files
        rows = open_file(write_lines({"question": "q", "answer": "a"}))
        assert rows.report.summary() == (
            "rows.jsonl: 1 rows (instruction from 'question', output from 'answer')"
        )
    mixed = write_lines(
        {"messages": TURNS}, *[{"prompt": "q", "response": "a"}] * 2, name="m.jsonl"
    )
    assert open_file(mixed).report.summary() == (
        "m.jsonl: 3 rows (2: instruction from 'prompt', output from 'response')"
    )


def test_a_hint_names_the_flag_of_the_command(write_lines, open_file):
    unknown = write_lines({"task": "q", "gold": "a"})
    with pytest.raises(EmptyDataError, match=r"--data\.columns\.instruction and \.output"):
        open_file(unknown)
    with pytest.raises(EmptyDataError, match=r"with --columns\.instruction and \.output"):
        open_file(unknown, flags=OWN_ROWS)
    mixed = write_lines({"instruction": "q", "output": "a"}, {"instruction": "q", "gold": "a"})
    for _ in range(2):  # the second time from the prepared files
        with pytest.raises(MalformedRowsError) as error:
            open_file(mixed, flags=OWN_ROWS)
        assert "give them with --columns.output" in str(error.value)
        assert "data." not in str(error.value)
    with pytest.raises(MalformedRowsError, match=r"--data\.columns\.output(.|\n)*on_error: skip"):
        open_file(mixed)


def test_answers_to_judge_have_every_shape(write_lines):
    one = write_lines({"prompt": "q", "completion": "a"}, name="a.jsonl")
    other = write_lines({"question": "q", "answer": "b", "text": "q b"}, name="b.jsonl")
    assert read_pairs(str(one), str(other)).pairs == [("q", "a", "b")]
    with pytest.raises(ValueError, match=r"bad\.jsonl:1: .*--columns\.instruction"):
        read_pairs(str(one), str(write_lines({"task": "q"}, name="bad.jsonl")))
