import json

import pytest

from adakd_jax.config import Columns, GenerationConfig
from adakd_jax.data.rows import normalize_row
from adakd_jax.data.tokenize import Encoder
from adakd_jax.eval.answer_file import answer_file

# Three blocks of four answers, so that stopping between blocks leaves something to continue.
SETTINGS = GenerationConfig(max_new_tokens=6, batch_size=1, temperature=1.0)
ASKED = ["Say a", "Say b", "Count", "Say a", "Rain", "Boat", "Bay", "Pears", "Why", "How"]


@pytest.fixture(scope="module")
def encoder(tiny_pretrained):
    return Encoder("chat", tiny_pretrained.tokenizer, 64, 65)


@pytest.fixture(scope="module")
def rows():
    return [
        normalize_row({"instruction": text}, Columns(), origin="p:1", require_output=False)
        for text in ASKED
    ]


@pytest.fixture(scope="module")
def whole(tiny_pretrained, encoder, rows, tmp_path_factory):
    file = tmp_path_factory.mktemp("whole") / "new" / "answers.jsonl"
    report = answer_file(tiny_pretrained, encoder, rows, file, SETTINGS)
    return file.read_text(), report


def test_every_row_is_answered_in_order(whole):
    text, report = whole
    records = [json.loads(line) for line in text.splitlines()]
    assert [record["instruction"] for record in records] == ASKED
    assert {frozenset(record) for record in records} == {
        frozenset(("instruction", "input", "output", "finish"))
    }
    assert report.written == len(ASKED) and report.present == 0 and not report.left_out
    assert report.cut == sum(record["finish"] == "length" for record in records)
    # The same question twice is two samples.
    assert records[0]["output"] != records[3]["output"]


@pytest.mark.parametrize("lines", [0, 4, 8])
def test_continues_after_an_interruption_with_the_same_answers(
    tiny_pretrained, encoder, rows, whole, tmp_path, lines
):
    file = tmp_path / "answers.jsonl"
    kept = whole[0].splitlines(keepends=True)
    file.write_text("".join(kept[:lines]) + kept[lines][:-7])
    report = answer_file(tiny_pretrained, encoder, rows, file, SETTINGS)
    assert file.read_text() == whole[0]
    assert (report.present, report.written) == (lines, len(ASKED) - lines)


def test_nothing_is_left_to_do(tiny_pretrained, encoder, rows, whole, tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text(whole[0])
    report = answer_file(tiny_pretrained, encoder, rows, file, SETTINGS)
    assert file.read_text() == whole[0]
    assert (
        report.summary()
        == "0 answers written, 0 of them cut at their longest; 10 were there already"
    )


def test_answers_to_other_prompts_are_refused(tiny_pretrained, encoder, rows, whole, tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text(whole[0])
    with pytest.raises(ValueError, match=r"1 answers to other prompts.*How"):
        answer_file(tiny_pretrained, encoder, rows[:9], file, SETTINGS)
    file.write_text("[1, 2]\n" + whole[0])
    with pytest.raises(ValueError, match=r"answers\.jsonl:1: not a row"):
        answer_file(tiny_pretrained, encoder, rows, file, SETTINGS)
    assert file.read_text() == "[1, 2]\n" + whole[0]


def test_conversations_stay_conversations(tiny_pretrained, encoder, tmp_path):
    turns = [{"role": "user", "content": "Rain"}, {"role": "assistant", "content": "old"}]
    rows = [normalize_row({"messages": turns}, Columns(), origin="p:1")]
    file = tmp_path / "answers.jsonl"
    answer_file(tiny_pretrained, encoder, rows, file, SETTINGS)
    record = json.loads(file.read_text())
    assert record["messages"][:-1] == turns[:1]
    assert record["messages"][-1]["role"] == "assistant"
    assert record["messages"][-1]["content"] not in ("", "old")
    assert answer_file(tiny_pretrained, encoder, rows, file, SETTINGS).present == 1


def test_empty_answers_and_rows_that_cannot_be_asked_are_left_out(
    silent_pretrained, encoder, rows, tmp_path
):
    plain = normalize_row({"text": "no prompt"}, Columns(), origin="p:1")
    file = tmp_path / "answers.jsonl"
    greedy = SETTINGS.model_copy(update={"temperature": 0.0})
    report = answer_file(silent_pretrained, encoder, [plain, *rows[:3]], file, greedy)
    assert report.written == 0 and sorted(report.left_out.values()) == [1, 3]
    assert "left out: 3 rows: the model gave an empty answer" in report.summary()
    assert file.read_text() == ""
