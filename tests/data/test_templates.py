import pytest

from adakd_jax.data.rows import RowError
from adakd_jax.data.templates import Part, make_template, template_warning


def text(formatted):
    return "".join(segment.text for segment in formatted.segments)


def pieces(formatted, part):
    return [segment.text for segment in formatted.segments if segment.part == part]


def test_alpaca_prompt_with_input(tokenizer, make_row):
    template = make_template("alpaca", tokenizer)
    row = make_row("Add.", "1 + 1", ["2", "two"])
    assert text(template.prompt(row)) == (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 + 1\n\n### Response:\n"
    )
    assert text(template.example(row)) == text(template.prompt(row)) + "2"
    assert pieces(template.example(row), Part.INPUT) == ["1 + 1"]
    assert pieces(template.example(row), Part.ANSWER) == ["2"]
    assert template.references(row) == ["2", "two"]


def test_alpaca_prompt_without_input(tokenizer, make_row):
    prompt = make_template("alpaca", tokenizer).prompt(make_row("Say hi."))
    assert text(prompt) == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nSay hi.\n\n### Response:\n"
    )
    assert pieces(prompt, Part.INSTRUCTION) == ["Say hi."]
    assert prompt.bare


def test_plain_text_is_all_target(tokenizer, make_row):
    template = make_template("text", tokenizer)
    assert template.example(make_row(text="Once.")).segments == (("Once.", Part.ANSWER),)
    assert template.references(make_row(text="Once.")) == []


@pytest.mark.parametrize(
    ("name", "parts", "reason"),
    [
        ("alpaca", {"text": "t"}, "'alpaca' needs an instruction"),
        ("alpaca", {"instruction": "q"}, "no answer to learn from"),
        ("text", {"instruction": "q", "outputs": ["a"]}, "'text' needs a text column"),
        ("chat", {"text": "t"}, "'chat' needs messages or an instruction"),
        ("chat", {"instruction": "q"}, "no answer to learn from"),
    ],
)
def test_a_row_that_lacks_what_a_template_needs_says_so(
    chat_tokenizer, make_row, name, parts, reason
):
    with pytest.raises(RowError, match=reason):
        make_template(name, chat_tokenizer).example(make_row(**parts))


def test_plain_text_has_no_prompt(tokenizer, make_row):
    with pytest.raises(RowError, match="has no prompt"):
        make_template("text", tokenizer).prompt(make_row(text="t"))


def test_an_instruct_teacher_is_warned_about_another_format(tokenizer, chat_tokenizer):
    assert "data.template is 'alpaca'" in str(template_warning("alpaca", chat_tokenizer))
    assert "'text'" in str(template_warning("text", chat_tokenizer))
    assert template_warning("chat", chat_tokenizer) is None
    assert template_warning("alpaca", tokenizer) is None


def test_chat_needs_a_chat_template(tokenizer):
    with pytest.raises(ValueError, match="the tokenizer has no chat template; valid: data"):
        make_template("chat", tokenizer)
