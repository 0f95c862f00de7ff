"""Thoughts, calls of tools, marks, dates: conversations as models have them now."""

import pytest

from adakd_jax.config.chat import ChatConfig
from adakd_jax.data.chat_ends import turn_ends
from adakd_jax.data.chat_render import ChatRenderer, TemplateRowError
from adakd_jax.data.rows import RowError
from adakd_jax.data.templates import Part, make_template
from adakd_jax.data.tokenize import Encoder

HEAD = "{% for m in messages %}<|start|>{{ m['role'] }}\n"
FOOT = (
    "<|stop|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    "{% endif %}"
)
# Writes a thought of the last turn only, and calls; `enable_thinking: false` asks for none.
AGENT = (
    "{% if tools %}<|start|>tools\n{{ tools | tojson }}<|stop|>\n{% endif %}" + HEAD + "{% if "
    "m['role'] == 'assistant' and loop.last %}<think>{{ m.reasoning_content or '' }}</think>"
    "{% endif %}{{ m['content'] }}{% for call in m.tool_calls or [] %}"
    "<call>{{ call.function | tojson }}</call>{% endfor %}" + FOOT
)
# Keeps what stands behind a thought, but asks with an opened one.
FORGETTING = (
    HEAD + "{{ m['content'].split('</think>')[-1] }}<|stop|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n<think>\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{% generation %}<|start|>assistant\n{{ m['content'] }}<|stop|>{% endgeneration %}{% else %}"
    "<|start|>user\n{{ m['content'] }}<|stop|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
DATED = "{{ strftime_now('%d %b %Y') }}\n" + HEAD + "{{ m['content'] }}" + FOOT
ASK = {"role": "user", "content": "6*7?"}
THOUGHT = "<think>\nsix sevens\n</think>\n\n42"
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Oslo é"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}


def answers(formatted):
    return [segment.text for segment in formatted.segments if segment.part == Part.ANSWER]


def whole(formatted):
    return "".join(segment.text for segment in formatted.segments)


@pytest.fixture
def template_of(tokenizer_with):
    def make(source, **chat):
        return make_template("chat", tokenizer_with(source), ChatConfig(**chat))

    return make


def test_a_thought_is_learned_where_the_template_writes_it(template_of, make_row):
    told = {"role": "assistant", "content": "42", "reasoning_content": "six sevens"}
    formatted = template_of(AGENT).example(make_row(messages=[ASK, told]))
    assert answers(formatted) == ["<think>six sevens</think>42<|stop|>"]


def test_calls_and_tools_are_given_to_the_template(template_of, make_row):
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    talk = [ASK, call, {"role": "tool", "content": "4"}, {"role": "assistant", "content": "Cold."}]
    row = make_row(messages=talk, tools=[TOOL])
    template = template_of(AGENT)
    assert answers(template.example(row)) == [
        '<call>{"name": "weather", "arguments": {"town": "Oslo é"}}</call><|stop|>',
        "<think></think>Cold.<|stop|>",
    ]
    assert whole(template.prompt(row)).startswith('<|start|>tools\n[{"type": "function"')
    assert template.references(make_row(messages=[ASK, call])) == []


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        ({"content": "42", "reasoning_content": "six sevens"}, "'reasoning_content'"),
        ({"content": "", "tool_calls": [CALL]}, "'tool_calls'"),
    ],
)
def test_what_a_template_leaves_out_is_said(chat_tokenizer, make_row, answer, part):
    row = make_row(messages=[ASK, {"role": "assistant", **answer}])
    with pytest.raises(TemplateRowError, match=rf"leaves out {part} of messages\[1\].*weight 0"):
        make_template("chat", chat_tokenizer).example(row)


def test_an_unwritten_argument_of_a_call_is_left_out(template_of, make_row):
    source = HEAD + "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
    template = template_of(source + "{% endfor %}" + FOOT)
    row = make_row(messages=[ASK, {"role": "assistant", "content": "", "tool_calls": [CALL]}])
    with pytest.raises(TemplateRowError, match="leaves out 'tool_calls'"):
        template.example(row)


def test_tools_that_a_template_does_not_write_are_said(chat_tokenizer, make_row):
    row = make_row(messages=[ASK, {"role": "assistant", "content": "42"}], tools=[TOOL])
    template = make_template("chat", chat_tokenizer)
    for asked in (template.example, template.prompt):
        with pytest.raises(TemplateRowError, match="does not write the row's tools, 'weather'"):
            asked(row)


def test_a_template_that_takes_the_thought_out(template_of, make_row):
    row = make_row(messages=[ASK, {"role": "assistant", "content": THOUGHT}])
    with pytest.raises(TemplateRowError, match="leaves out 'content' of messages"):
        template_of(FORGETTING).example(row)
    assert answers(template_of(FORGETTING, left_out="ignore").example(row)) == ["\n\n42<|stop|>"]
    template = template_of(FORGETTING, left_out="verbatim")
    example, prompt = template.example(row), template.prompt(row)
    assert answers(example) == ["six sevens\n</think>\n\n42<|stop|>"]
    assert whole(example) == whole(prompt) + answers(example)[0]


def test_a_thought_of_an_earlier_turn_cannot_be_learned_there(template_of, make_row):
    told = {"role": "assistant", "content": "42", "reasoning_content": "six sevens"}
    talk = [ASK, told, ASK, {**told, "content": "42 again"}]
    with pytest.raises(TemplateRowError, match=r"'reasoning_content' of messages\[1\]"):
        template_of(AGENT).example(make_row(messages=talk))
    context = [ASK, {**told, "weight": 0}, *talk[2:]]
    formatted = template_of(AGENT).example(make_row(messages=context))
    assert answers(formatted) == ["<think>six sevens</think>42 again<|stop|>"]
    ignored = template_of(AGENT, left_out="ignore").example(make_row(messages=talk))
    assert answers(ignored)[0] == "42<|stop|>"


def test_a_turn_of_weight_0_is_context(chat_tokenizer, make_row):
    talk = [ASK, {"role": "assistant", "content": "41", "weight": 0}, ASK]
    row = make_row(messages=[*talk, {"role": "assistant", "content": "42"}])
    formatted = make_template("chat", chat_tokenizer).example(row)
    assert answers(formatted) == ["42<|stop|>"] and "41<|stop|>" in whole(formatted)
    ending = [ASK, {"role": "assistant", "content": "42"}, *talk[:2]]
    formatted = make_template("chat", chat_tokenizer).example(make_row(messages=ending))
    assert answers(formatted) == ["42<|stop|>"] and whole(formatted).endswith("42<|stop|>")
    with pytest.raises(RowError, match="no answer to learn from"):
        make_template("chat", chat_tokenizer).example(make_row(messages=talk))


def test_thinking_is_switched_by_the_settings_and_by_the_row(template_of, make_row):
    row = make_row(messages=[ASK, {"role": "assistant", "content": "42"}])
    off = template_of(AGENT, kwargs={"enable_thinking": False})
    assert whole(off.prompt(row)).endswith("assistant\n<think></think>")
    assert answers(off.example(row)) == ["42<|stop|>"]
    assert answers(template_of(AGENT).example(row)) == ["<think></think>42<|stop|>"]
    on = make_row(messages=row["messages"], template_kwargs={"enable_thinking": True})
    assert whole(off.prompt(on)).endswith("assistant\n")


def test_an_answer_of_a_model_stands_where_it_was_asked_for(template_of, make_row):
    written = "six sevens\n</think>\n\n42"
    row = make_row("6*7?", outputs=[written], generated=True)
    template = template_of(FORGETTING)
    assert answers(template.example(row)) == [written + "<|stop|>"]
    assert whole(template.example(row)).startswith(whole(template.prompt(row)))
    cut = make_row("6*7?", outputs=[written], generated=True, cut=True)
    assert answers(template.example(cut)) == [written]


def test_marks_of_the_template_say_what_is_learned(template_of, make_row):
    talk = [
        ASK,
        {"role": "assistant", "content": "41"},
        ASK,
        {"role": "assistant", "content": "42"},
    ]
    template = template_of(MARKED)
    formatted = template.example(make_row(messages=talk))
    # The opening is asked with, not learned, though it is marked.
    assert answers(formatted) == ["41<|stop|>", "42<|stop|>"]
    assert whole(formatted).startswith(whole(template.prompt(make_row(messages=talk))))
    context = [ASK, {**talk[1], "weight": 0}, *talk[2:]]
    assert answers(template.example(make_row(messages=context))) == ["42<|stop|>"]


def test_with_marks_a_template_may_rewrite_earlier_text(template_of, make_row):
    talk = [
        ASK,
        {"role": "assistant", "content": "41"},
        ASK,
        {"role": "assistant", "content": "42"},
    ]
    formatted = template_of("{{ messages | length }} " + MARKED).example(make_row(messages=talk))
    assert answers(formatted) == [f"<|start|>assistant\n{n}<|stop|>" for n in (41, 42)]


def test_several_marks_of_a_turn_are_all_learned(template_of, make_row):
    source = MARKED.replace(
        "{{ m['content'] }}<|stop|>{% endgeneration %}",
        "{{ m['content'] }}{% endgeneration %} (said) {% generation %}<|stop|>{% endgeneration %}",
    )
    talk = [
        ASK,
        {"role": "assistant", "content": "41"},
        ASK,
        {"role": "assistant", "content": "42"},
    ]
    formatted = template_of(source).example(make_row(messages=talk))
    assert answers(formatted) == ["41", "<|stop|>", "42", "<|stop|>"]


def test_a_turn_without_marks_is_refused(template_of, make_row):
    source = MARKED.replace("{% generation %}", "{% if loop.last %}{% generation %}").replace(
        "{% endgeneration %}", "{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}"
    )
    talk = [
        ASK,
        {"role": "assistant", "content": "41"},
        ASK,
        {"role": "assistant", "content": "42"},
    ]
    with pytest.raises(TemplateRowError, match="leaves out 'content' of messages"):
        template_of(source).example(make_row(messages=talk))


def test_earlier_turns_need_not_keep_what_they_are_asked_with(template_of, make_row):
    source = AGENT.replace("<think></think>{% endif %}", "{% endif %}").replace(
        "<|start|>assistant\n{% if", "<|start|>assistant\n<think>{% if"
    )
    talk = [
        ASK,
        {"role": "assistant", "content": "41"},
        ASK,
        {"role": "assistant", "content": "42"},
    ]
    formatted = template_of(source).example(make_row(messages=talk))
    assert answers(formatted) == ["41<|stop|>", "</think>42<|stop|>"]


def test_an_answer_does_not_begin_inside_of_a_token(template_of, make_row):
    # The template asks with one special token and writes an earlier answer with another.
    source = (
        "{% for m in messages %}{{ m['role'] }}:{% if m['role'] == 'assistant' %}"
        "{{ '<|begin|>' if loop.last else '<|end|>' }}{% endif %}{{ m['content'] }}<|stop|>"
        "{% endfor %}{% if add_generation_prompt %}assistant:<|begin|>{% endif %}"
    )
    talk = [
        ASK,
        {"role": "assistant", "content": "41"},
        ASK,
        {"role": "assistant", "content": "42"},
    ]
    formatted = template_of(source).example(make_row(messages=talk))
    assert answers(formatted) == ["<|end|>41<|stop|>", "42<|stop|>"]


def test_special_tokens_that_follow_each_other_end_a_turn_together(tokenizer_with, make_row):
    source = HEAD + "{{ m['content'] }}<|end|>" + FOOT
    tokenizer = tokenizer_with(source)
    talk = [
        ASK,
        {"role": "assistant", "content": "41"},
        ASK,
        {"role": "assistant", "content": "42"},
    ]
    formatted = make_template("chat", tokenizer).example(make_row(messages=talk))
    assert answers(formatted) == ["41<|end|><|stop|>", "42<|end|><|stop|>"]
    ends = turn_ends(ChatRenderer(tokenizer)).tokens
    assert tokenizer.convert_ids_to_tokens(list(ends)) == ["<|stop|>"]


def test_a_template_may_take_arguments_as_text(template_of, make_row):
    source = HEAD + "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name + ' ' + "
    template = template_of(source + "c.function.arguments }}{% endfor %}" + FOOT)
    row = make_row(messages=[ASK, {"role": "assistant", "content": "", "tool_calls": [CALL]}])
    assert answers(template.example(row)) == ['weather {"town": "Oslo é"}<|stop|>']


def test_a_cut_answer_loses_its_end_though_the_template_marks_more(template_of, make_row):
    source = MARKED.replace("<|stop|>{% endgeneration %}", "<|stop|>\n{% endgeneration %}")
    row = make_row(messages=[ASK, {"role": "assistant", "content": "42"}])
    assert answers(template_of(source).example(row)) == ["42<|stop|>\n"]
    assert answers(template_of(source).example({**row, "cut": True})) == ["42"]


def test_the_date_in_prompts_is_the_one_that_is_given(template_of, make_row):
    template = template_of(DATED, date="2024-02-29")
    row = make_row("q", outputs=["a"])
    assert whole(template.prompt(row)).startswith("29 Feb 2024\n")
    assert whole(template.example(row)).startswith("29 Feb 2024\n")
    assert template.key["date"] == "2024-02-29"
    assert template_of(AGENT, date="2024-02-29").key["date"] is None


def test_a_date_of_a_form_that_is_not_written_out_is_refused(template_of):
    with pytest.raises(ValueError, match="the date in a format that it does not write out"):
        template_of("{% set form = '%Y' %}{{ strftime_now(form) }}" + DATED)


def test_a_date_is_a_day_of_the_calendar():
    assert ChatConfig(date="2024-02-29").date == "2024-02-29"
    for wrong in ("2023-02-29", "29.2.2024"):
        with pytest.raises(ValueError, match="date"):
            ChatConfig(date=wrong)


def test_a_long_history_is_asked_as_it_was_trained_on_or_not_at_all(chat_tokenizer, make_row):
    first = [{"role": "user", "content": "x" * 30}, {"role": "assistant", "content": "y" * 30}]
    talk = [*first, ASK, {"role": "assistant", "content": "42"}]
    encoder = Encoder("chat", chat_tokenizer, 100, 300)
    example = encoder.example(make_row(messages=talk))
    assert example.cuts == (0, 0, 0)
    with pytest.raises(
        RowError, match="before the last answer has more than max_prompt_length 100"
    ):
        encoder.prompt(make_row(messages=talk))
    # Without an earlier answer to learn, training cuts the same prompt in the same way.
    context = [first[0], {**first[1], "weight": 0}, *talk[2:]]
    asked, example = (
        read(make_row(messages=context)) for read in (encoder.prompt, encoder.example)
    )
    assert example.tokens[: len(asked.tokens)].tolist() == asked.tokens.tolist()
    assert asked.cuts.instruction > 0


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("{{ messages[0]['role'] + messages[0].get('name') }}", "TypeError"),
        ("{{ messages[0].name | upper }}{{ 1 // (messages | length - 2) }}", "ZeroDivisionError"),
    ],
)
def test_any_error_of_a_template_is_about_the_row(tokenizer_with, make_row, source, error):
    renderer = ChatRenderer(tokenizer_with(source))
    row = make_row(messages=[ASK, {"role": "assistant", "content": "42"}])
    with pytest.raises(TemplateRowError, match=f"fails at the conversation: {error}"):
        renderer.render(row["messages"], row)


def test_a_template_that_cannot_write_an_answer_is_refused(tokenizer_with):
    with pytest.raises(ValueError, match="a question and its answer: the chat template fails"):
        make_template("chat", tokenizer_with("{{ messages[0]['role'] + none }}"))


# A turn ends with another token when it is the last, and with a third one when it calls a tool.
THREE_ENDS = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
    "{% if m.tool_calls %}<|begin|>{% elif loop.last and m['role'] == 'assistant' %}<|end|>"
    "{% else %}<|stop|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def test_what_ends_a_last_turn_and_a_call_ends_answers(tokenizer_with, make_row):
    tokenizer = tokenizer_with(THREE_ENDS)
    ends = turn_ends(ChatRenderer(tokenizer)).tokens
    assert tokenizer.convert_ids_to_tokens(list(ends)) == ["<|end|>", "<|begin|>"]
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    talk = [ASK, {"role": "assistant", "content": "hm"}, ASK, call]
    formatted = make_template("chat", tokenizer).example(make_row(messages=talk))
    assert answers(formatted)[0] == "hm<|stop|>"
    assert answers(formatted)[1].endswith('"Oslo é"}}<|begin|>')


def test_a_template_without_an_end_has_no_end_tokens(tokenizer_with):
    source = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    assert turn_ends(ChatRenderer(tokenizer_with(source))).tokens == ()


def test_of_several_templates_the_default_and_that_of_tools(tokenizer_with, make_row):
    plain = HEAD + "{{ m['content'] }}" + FOOT
    template = make_template("chat", tokenizer_with({"default": plain, "tool_use": AGENT}))
    talk = [ASK, {"role": "assistant", "content": "42"}]
    assert answers(template.example(make_row(messages=talk))) == ["42<|stop|>"]
    assert answers(template.example(make_row(messages=talk, tools=[TOOL]))) == [
        "<think></think>42<|stop|>"
    ]
    with pytest.raises(ValueError, match=r"none is called 'default'; choose one .*: rag"):
        make_template("chat", tokenizer_with({"rag": plain}))
