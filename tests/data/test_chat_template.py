import pytest

from adakd_jax.config.chat import ChatConfig
from adakd_jax.data.chat_render import TemplateRowError
from adakd_jax.data.rows import RowError
from adakd_jax.data.templates import Part, make_template

TALK = [
    ("system", "Be brief."),
    ("user", "Hi?"),
    ("assistant", "Hello."),
    ("user", "More?"),
    ("assistant", "No."),
]
# What real models do: trim, mark the first turn, drop thoughts of earlier turns, end with EOS.
TRIMMING = (
    "<|begin|>{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|stop|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
THINKING = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}(thought){% endif %}"
    "{{ m['content'] }}<|stop|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
OPEN_THOUGHT = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|stop|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n(think){% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
REWRITING = (
    "{{ messages | length }} turns\n{% for m in messages %}<|start|>{{ m['content'] }}<|stop|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>{% endif %}"
)


def answers(formatted):
    return [segment.text for segment in formatted.segments if segment.part == Part.ANSWER]


def whole(formatted):
    return "".join(segment.text for segment in formatted.segments)


@pytest.fixture
def template_of(tokenizer_with):
    return lambda source: make_template("chat", tokenizer_with(source))


def test_every_assistant_turn_is_a_target_with_its_end(chat_tokenizer, make_row):
    formatted = make_template("chat", chat_tokenizer).example(make_row(messages=TALK))
    assert answers(formatted) == ["Hello.<|stop|>", "No.<|stop|>"]
    rendered = chat_tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in TALK], tokenize=False
    )
    assert whole(formatted) == rendered.rstrip("\n")
    assert not formatted.bare


def test_the_prompt_is_what_the_tokenizer_writes_to_ask(chat_tokenizer, make_row):
    template = make_template("chat", chat_tokenizer)
    asked = [{"role": role, "content": content} for role, content in TALK[:-1]]
    expected = chat_tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert whole(template.prompt(make_row(messages=TALK))) == expected
    assert whole(template.prompt(make_row(messages=TALK[:-1]))) == expected
    assert whole(template.example(make_row(messages=TALK))).startswith(expected)
    assert template.references(make_row(messages=TALK)) == ["No."]
    assert template.references(make_row(messages=TALK[:-1])) == []


def test_an_instruction_and_its_input_are_one_user_turn(chat_tokenizer, make_row):
    template = make_template("chat", chat_tokenizer)
    row = make_row("Add.", "1 + 1", ["2", "two"])
    assert whole(template.example(row)) == (
        "<|start|>user\nAdd.\n\n1 + 1<|stop|>\n<|start|>assistant\n2<|stop|>"
    )
    parts = {part: text for text, part in template.prompt(row).segments if part != Part.TEMPLATE}
    assert parts == {Part.INSTRUCTION: "Add.", Part.INPUT: "1 + 1"}
    assert template.references(row) == ["2", "two"]


def test_words_of_the_user_are_found_though_the_template_says_them_too(chat_tokenizer, make_row):
    talk = [("user", "user"), ("assistant", "user"), ("user", "assistant"), ("assistant", "x")]
    segments = make_template("chat", chat_tokenizer).example(make_row(messages=talk)).segments
    assert [(text, part) for text, part in segments if part != Part.TEMPLATE] == [
        ("user", Part.INSTRUCTION),
        ("user<|stop|>", Part.ANSWER),
        ("assistant", Part.INSTRUCTION),
        ("x<|stop|>", Part.ANSWER),
    ]


def test_a_template_that_trims(template_of, make_row):
    talk = [("user", " q \n"), ("assistant", "  a ")]
    formatted = template_of(TRIMMING).example(make_row(messages=talk))
    assert answers(formatted) == ["a<|stop|>"]
    assert ("q", Part.INSTRUCTION) in formatted.segments


def test_a_template_that_drops_earlier_thoughts(template_of, make_row):
    formatted = template_of(THINKING).example(make_row(messages=TALK))
    assert answers(formatted) == ["Hello.<|stop|>", "(thought)No.<|stop|>"]


def test_a_template_that_opens_a_thought_when_asking(tokenizer_with, make_row):
    tokenizer, row = tokenizer_with(OPEN_THOUGHT), make_row(messages=TALK)
    with pytest.raises(TemplateRowError, match=r"asks for messages\[4\] with .*\(think\)', but"):
        make_template("chat", tokenizer).example(row)
    ignoring = make_template("chat", tokenizer, ChatConfig(left_out="ignore"))
    assert answers(ignoring.example(row)) == ["Hello.<|stop|>", "No.<|stop|>"]


def test_a_template_without_an_end_of_turn_gets_eos_at_the_last(template_of, make_row):
    formatted = template_of(NO_END).example(make_row(messages=TALK))
    assert answers(formatted) == ["Hello.", "No.<|end|>"]


@pytest.mark.parametrize(
    ("source", "first"),
    [(TRIMMING, "Hello.<|stop|>"), (NO_END, "Hello.")],
)
def test_a_cut_conversation_ends_with_the_words_of_its_last_answer(
    template_of, make_row, source, first
):
    formatted = template_of(source).example(make_row(messages=[*TALK, ("user", "?")], cut=True))
    assert answers(formatted) == [first, "No."]
    assert whole(formatted).endswith("No.")


def test_a_template_that_rewrites_earlier_turns_is_refused(template_of, make_row):
    with pytest.raises(RowError, match=r"before messages\[2\] otherwise once more follows"):
        template_of(REWRITING).example(make_row(messages=TALK))


def test_a_template_that_refuses_a_conversation_is_quoted(template_of, make_row):
    source = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('no system turn') }}{% endif %}{{ m['content'] }}<|stop|>{% endfor %}"
    )
    with pytest.raises(RowError, match="refuses the conversation: no system turn"):
        template_of(source).example(make_row(messages=TALK))


def test_an_answer_that_contains_the_end_of_turn_is_refused(chat_tokenizer, make_row):
    talk = [("user", "q"), ("assistant", "a<|stop|>b")]
    with pytest.raises(RowError, match=r"contains '<\|stop\|>'"):
        make_template("chat", chat_tokenizer).example(make_row(messages=talk))


def test_a_conversation_that_starts_with_its_only_answer_has_no_prompt(chat_tokenizer, make_row):
    with pytest.raises(RowError, match="no turn before the answer"):
        make_template("chat", chat_tokenizer).prompt(make_row(messages=[("assistant", "a")]))


@pytest.mark.parametrize("after", [[], [("user", "q"), ("assistant", "b")]])
def test_a_conversation_that_starts_with_an_answer_is_refused(chat_tokenizer, make_row, after):
    with pytest.raises(RowError, match="no turn before the answer"):
        make_template("chat", chat_tokenizer).example(
            make_row(messages=[("assistant", "a"), *after])
        )
