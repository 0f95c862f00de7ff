import numpy as np
import pytest

from adakd_jax.data import examples as examples_module
from adakd_jax.data.examples import encode_rows, tokenizer_digest
from adakd_jax.data.sources import EmptyDataError
from adakd_jax.data.tokenize import Encoder

ROWS = [
    {"instruction": "q", "output": "first"},
    {"text": "no instruction"},
    {"instruction": "r", "input": "i" * 40, "output": "second"},
    {"instruction": "s", "output": "t" * 200},
]
LIMITS = {"max_prompt_length": 230, "max_length": 300}


@pytest.fixture
def rows(write_lines, open_file):
    return open_file(write_lines(*ROWS))


def encode(rows, tokenizer, tmp_path, **changes):
    options = {"template": "alpaca", "cache_dir": tmp_path / "cache"} | LIMITS | changes
    return encode_rows(rows, options.pop("template"), tokenizer, **options)


def test_examples_are_what_the_encoder_gives(rows, tokenizer, tmp_path):
    examples = encode(rows, tokenizer, tmp_path)
    encoder = Encoder("alpaca", tokenizer, *LIMITS.values())
    assert examples.rows.tolist() == [0, 2, 3]
    assert len(examples) == 3
    for example, row in zip(examples, examples.rows, strict=True):
        alone = encoder.example(rows[int(row)])
        np.testing.assert_array_equal(example.tokens, alone.tokens)
        np.testing.assert_array_equal(example.targets, alone.targets)
    assert examples.lengths.tolist() == [len(example.tokens) for example in examples]


def test_an_answer_that_length_ended_gets_no_end(write_lines, open_file, tokenizer, tmp_path):
    answered = [{"instruction": "q", "output": "a", "finish": end} for end in ("eos", "length")]
    whole, cut = encode(open_file(write_lines(*answered)), tokenizer, tmp_path)
    assert tokenizer.decode(whole.tokens[whole.targets]) == "a<|end|>"
    assert tokenizer.decode(cut.tokens[cut.targets]) == "a"


def test_the_report_counts_cuts_and_drops(rows, tokenizer, tmp_path):
    report = encode(rows, tokenizer, tmp_path).report
    encoder = Encoder("alpaca", tokenizer, 999, 999)
    whole = [len(encoder.example(rows[i]).tokens) for i in (0, 2, 3)]
    prompt = len(encoder.prompt(rows[2]).tokens)
    assert report.input_cuts == (1, prompt - 230)
    assert report.answer_cuts == (1, whole[2] - 300)
    assert report.instruction_cuts == (0, 0)
    assert report.tokens == sum(whole) - (prompt - 230) - (whole[2] - 300)
    answers = len("first$") + len("second$") + len("t" * 200) + 1 - (whole[2] - 300)
    assert report.response_tokens == answers
    summary = report.summary()
    assert "3 examples" in summary
    assert f"1 rows lost {prompt - 230} tokens at the middle of the input" in summary
    assert "1 rows, first rows.jsonl:2: template 'alpaca' needs an instruction" in summary


def test_the_second_start_tokenizes_nothing(rows, tokenizer, tmp_path, monkeypatch):
    first = encode(rows, tokenizer, tmp_path)
    monkeypatch.setattr(examples_module.Encoder, "examples", None)
    again = encode(rows, tokenizer, tmp_path)
    assert again.report == first.report
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
    with pytest.raises(TypeError):  # other lengths: tokenized again
        encode(rows, tokenizer, tmp_path, max_length=301)


def test_other_rows_template_or_tokenizer_are_tokenized_anew(
    rows, tokenizer, chat_tokenizer, tokenizer_with, tmp_path
):
    counted = [
        encode(rows, tokenizer, tmp_path).report.tokens,
        encode(rows[2:], tokenizer, tmp_path).report.tokens,
        encode(rows, chat_tokenizer, tmp_path, template="chat").report.tokens,
        encode(rows, tokenizer, tmp_path, template="text").report.tokens,
        encode(rows, tokenizer_with(begin=True), tmp_path, max_length=301).report.tokens,
    ]
    assert len(set(counted)) == len(counted)


def test_a_tokenizer_is_named_by_what_its_tokens_depend_on(tokenizer_with):
    same = tokenizer_with()
    same(["a", "bcd"], padding=False, truncation=True, max_length=2)
    assert tokenizer_digest(same) == tokenizer_digest(tokenizer_with())
    others = [tokenizer_with(), tokenizer_with("{{ messages }}"), tokenizer_with(begin=True)]
    others.append(tokenizer_with())
    others[-1].eos_token = "<|stop|>"
    assert len({tokenizer_digest(one) for one in others}) == 4


def test_rows_of_which_none_can_be_used_are_an_error(rows, tokenizer, tmp_path):
    with pytest.raises(EmptyDataError, match=r"rows\.jsonl gives an example:(.|\n)*needs a text"):
        encode(rows.select([0, 2]), tokenizer, tmp_path, template="text")
