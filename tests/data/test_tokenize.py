import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adakd_jax.data.pieces import Cuts
from adakd_jax.data.rows import RowError
from adakd_jax.data.templates import Formatted, Part, Segment
from adakd_jax.data.tokenize import Encoder, encode_example, encode_prompt


class Brackets:
    """A template of two one-token words around what may be cut: [instruction|input]answer."""

    def prompt(self, row):
        parts = ("[", row["instruction"], "|", row["input"], "]")
        kinds = (Part.TEMPLATE, Part.INSTRUCTION, Part.TEMPLATE, Part.INPUT, Part.TEMPLATE)
        segments = (Segment(text, kind) for text, kind in zip(parts, kinds, strict=True) if text)
        return Formatted(tuple(segments), bare=True)

    def example(self, row):
        answer = Segment(row["outputs"][0], Part.ANSWER)
        return Formatted((*self.prompt(row).segments, answer), bare=True)

    def references(self, row):
        return row["outputs"]


def read(tokenizer, example):
    """Prompt and answer as text, the end of the text as '$'."""
    first = int(np.argmax(example.targets))
    assert example.targets[first:].all()
    pair = tokenizer.decode(example.tokens[:first]), tokenizer.decode(example.tokens[first:])
    return tuple(text.replace("<|end|>", "$") for text in pair)


@pytest.mark.parametrize(
    ("max_prompt", "max_length", "expected", "cuts"),
    [
        (20, 40, ("[123|456789]wxyz"), Cuts()),
        (12, 17, ("[123|456789]wxyz"), Cuts()),
        (11, 17, ("[123|45689]wxyz"), Cuts(input=1)),  # the prompt is too long
        (12, 16, ("[123|456789]wxyz"), Cuts(answer=1)),  # the whole is: only EOS is lost
        (9, 40, ("[123|459]wxyz"), Cuts(input=3)),
        (12, 14, ("[123|456789]wx"), Cuts(answer=3)),
        (12, 13, ("[123|456789]w"), Cuts(answer=4)),
        (9, 12, ("[123|459]wxy"), Cuts(input=3, answer=2)),
        (5, 40, ("[13|]wxyz"), Cuts(input=6, instruction=1)),
        (3, 40, ("[|]wxyz"), Cuts(input=6, instruction=3)),
        (4, 6, ("[1|]wx"), Cuts(input=6, instruction=2, answer=3)),
    ],
)
def test_what_an_over_long_row_loses(tokenizer, make_row, max_prompt, max_length, expected, cuts):
    row = make_row("123", "456789", ["wxyz"])
    example = encode_example(row, Brackets(), tokenizer, max_prompt, max_length)
    prompt, answer = read(tokenizer, example)
    assert prompt + answer == expected + ("" if cuts.answer else "$")
    assert example.cuts == cuts
    assert len(example.tokens) <= max_length


@pytest.mark.parametrize(
    ("max_prompt", "max_length", "reason"),
    [(12, 12, "no token of the answer fits"), (2, 40, "without all that may be cut is longer")],
)
def test_a_row_of_which_nothing_fits_says_why(tokenizer, make_row, max_prompt, max_length, reason):
    with pytest.raises(RowError, match=reason):
        row = make_row("123", "456789", ["wxyz"])
        encode_example(row, Brackets(), tokenizer, max_prompt, max_length)


def test_an_instruction_without_input_gives_way_only_to_the_prompt_limit(tokenizer, make_row):
    row = make_row("123456", "", ["wxyz"])
    example = encode_example(row, Brackets(), tokenizer, 9, 11)
    assert read(tokenizer, example) == ("[123456|]", "wx")
    assert read(tokenizer, encode_example(row, Brackets(), tokenizer, 7, 40))[0] == "[1256|]"


def test_targets_of_an_alpaca_row(tokenizer, make_row):
    row = make_row("Add.", "1 + 1", ["two", "2"])
    example = encode_example(row, "alpaca", tokenizer, 400, 500)
    prompt, answer = read(tokenizer, example)
    assert prompt.endswith("### Input:\n1 + 1\n\n### Response:\n")
    assert answer == "two$"
    assert example.tokens[-1] == tokenizer.eos_token_id


def test_targets_of_a_conversation(chat_tokenizer, make_row):
    talk = [("user", "q"), ("assistant", "one"), ("user", "r"), ("assistant", "two")]
    example = encode_example(make_row(messages=talk), "chat", chat_tokenizer, 99, 99)
    assert chat_tokenizer.decode(example.tokens[example.targets]) == "one<|stop|>two<|stop|>"
    assert example.tokens[-1] == chat_tokenizer.convert_tokens_to_ids("<|stop|>")
    ends = np.flatnonzero(np.diff(example.targets.astype(int)) == 1)
    assert chat_tokenizer.decode(example.tokens[: ends[1] + 1]).endswith("<|start|>assistant\n")


def test_a_long_conversation_loses_its_end(chat_tokenizer, make_row):
    talk = [("user", "q"), ("assistant", "one"), ("user", "r" * 20), ("assistant", "two")]
    full = encode_example(make_row(messages=talk), "chat", chat_tokenizer, 99, 99)
    for lost, learned in ((1, "one<|stop|>two"), (3, "one<|stop|>t"), (4, "one<|stop|>")):
        example = encode_example(
            make_row(messages=talk), "chat", chat_tokenizer, 99, len(full.tokens) - lost
        )
        assert chat_tokenizer.decode(example.tokens[example.targets]) == learned
        assert example.targets[-1]  # nothing is kept behind the last target
        assert example.cuts == Cuts(answer=lost)


def test_a_long_question_loses_its_middle(chat_tokenizer, make_row):
    talk = [("user", "123456789"), ("assistant", "one")]
    example = encode_example(make_row(messages=talk), "chat", chat_tokenizer, 23, 99)
    assert chat_tokenizer.decode(example.tokens[~example.targets]) == (
        "<|start|>user\n1289<|stop|>\n<|start|>assistant\n"
    )
    assert example.cuts == Cuts(instruction=5)


def test_plain_text_is_learned_whole_and_loses_its_end(tokenizer, make_row):
    example = encode_example(make_row(text="words"), "text", tokenizer, 4, 99)
    assert example.targets.all() and tokenizer.decode(example.tokens) == "words<|end|>"
    short = encode_example(make_row(text="words"), "text", tokenizer, 4, 3)
    assert tokenizer.decode(short.tokens) == "wor"
    assert short.cuts == Cuts(answer=3)


@pytest.mark.parametrize(
    ("template", "parts", "learned", "end"),
    [
        ("alpaca", {"instruction": "q", "outputs": ["two"]}, "two", "<|end|>"),
        ("text", {"text": "words"}, "words", "<|end|>"),
        ("chat", {"instruction": "q", "outputs": ["two"]}, "two", "<|stop|>"),
        (
            "chat",
            {"messages": [(role, role[0]) for role in ("user", "assistant") * 2]},
            "a<|stop|>a",
            "<|stop|>",
        ),
    ],
)
def test_a_cut_answer_lacks_its_end_and_nothing_else(
    chat_tokenizer, make_row, template, parts, learned, end
):
    whole = encode_example(make_row(**parts), template, chat_tokenizer, 400, 500)
    cut = encode_example(make_row(**parts, cut=True), template, chat_tokenizer, 400, 500)
    assert chat_tokenizer.decode(whole.tokens[whole.targets]) == learned + end
    assert chat_tokenizer.decode(cut.tokens[cut.targets]) == learned
    assert cut.tokens.tolist() == whole.tokens[:-1].tolist()
    assert cut.targets.tolist() == whole.targets[:-1].tolist()
    assert cut.cuts == Cuts()


def test_begin_tokens_stand_in_front_and_are_no_target(tokenizer_with, make_row):
    tokenizer = tokenizer_with(begin=True)
    cut = make_row(text="words", cut=True)
    whole = make_row(text="words"), make_row("q", "", ["a"])
    for row, template in zip((cut, *whole), ("text", "text", "alpaca"), strict=True):
        example = encode_example(row, template, tokenizer, 400, 500)
        assert example.tokens[0] == tokenizer.bos_token_id
        assert not example.targets[0]
        assert np.count_nonzero(example.tokens == tokenizer.bos_token_id) == 1
    prompt = encode_prompt(make_row("q"), "alpaca", tokenizer, 400)
    assert prompt.tokens.tolist() == tokenizer(prompt.text)["input_ids"]


def test_a_chat_template_writes_its_own_begin_token(tokenizer_with, make_row):
    source = "<|begin|>{% for m in messages %}<|start|>{{ m['content'] }}<|stop|>{% endfor %}"
    tokenizer = tokenizer_with(source + "{% if add_generation_prompt %}<|start|>{% endif %}", True)
    example = encode_example(make_row("q", "", ["a"]), "chat", tokenizer, 99, 99)
    assert tokenizer.decode(example.tokens) == "<|begin|><|start|>q<|stop|><|start|>a<|stop|>"


@pytest.mark.parametrize("answer", ["\nx", "\n", "x", "ab", "b", " x", "\n\nx"])
@pytest.mark.parametrize("instruction", ["q", "qa"])
@pytest.mark.parametrize("trim", [False, True])
def test_the_prompt_has_the_same_tokens_as_in_generation(
    tokenizer_with, make_row, answer, instruction, trim
):
    """'\\n\\n' and 'ab' are one token each, so an answer may want to grow into its prompt."""

    class Bare(Brackets):
        def prompt(self, row):
            return Formatted((Segment(row["instruction"] + row["input"], Part.INSTRUCTION),), True)

    tokenizer = tokenizer_with(trim=trim)
    for end in ("", "\n", "a"):
        row = make_row(instruction, end, [answer])
        example = encode_example(row, Bare(), tokenizer, 99, 99)
        prompt = encode_prompt(row, Bare(), tokenizer, 99)
        assert prompt.tokens.tolist() == tokenizer(instruction + end)["input_ids"]
        assert example.tokens[~example.targets].tolist() == prompt.tokens.tolist()
        learned = tokenizer.decode(example.tokens[example.targets])
        assert learned == answer + "<|end|>"


@pytest.mark.parametrize("name", ["alpaca", "chat"])
def test_the_prompt_of_an_example_is_the_generation_prompt(chat_tokenizer, make_row, name):
    for answer in ("x", "\nx"):
        row = make_row("q\n", "ab", [answer])
        example = encode_example(row, name, chat_tokenizer, 400, 500)
        prompt = encode_prompt(row, name, chat_tokenizer, 400)
        assert example.tokens[~example.targets].tolist() == prompt.tokens.tolist()


def test_white_space_before_an_answer_keeps_its_tokens(tokenizer_with, make_row):
    """GPT-2's rule cuts white space in two before a word: an answer changes what it follows."""

    class Paragraphs(Brackets):
        def prompt(self, row):
            return Formatted((Segment(row["instruction"] + "\n\n", Part.INSTRUCTION),), True)

    tokenizer = tokenizer_with(regex=True)
    assert len(tokenizer("\n\n")["input_ids"]) == 1
    assert len(tokenizer("\n\nx")["input_ids"]) == 3
    example = encode_example(make_row("q", "", ["x"]), Paragraphs(), tokenizer, 99, 99)
    assert example.tokens[~example.targets].tolist() == tokenizer("q\n\n")["input_ids"]


def test_later_turns_keep_white_space_out_of_the_targets(tokenizer_with, make_row):
    """White space has no extent in a tokenizer that trims it; it must not slip into the answer."""
    source = (
        "{% for m in messages %}<|start|>{{ m['role'] }} {{ m['content'] }}<|stop|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant {% endif %}"
    )
    tokenizer = tokenizer_with(source, trim=True)
    talk = [("user", "q"), ("assistant", "one"), ("user", "\nr"), ("assistant", "\ntwo")]
    example = encode_example(make_row(messages=talk), "chat", tokenizer, 99, 99)
    assert tokenizer.decode(example.tokens[example.targets]) == "one<|stop|>\ntwo<|stop|>"


def test_generation_prompts_lose_the_middle_of_their_input(tokenizer, make_row):
    row = make_row("123", "456789", ["a", "b"])
    prompt = encode_prompt(row, Brackets(), tokenizer, 9)
    assert tokenizer.decode(prompt.tokens) == "[123|459]"
    assert (prompt.text, prompt.references) == ("[123|456789]", ["a", "b"])
    assert prompt.cuts == Cuts(input=3)


@pytest.mark.parametrize("template", ["alpaca", "chat", "brackets"])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_answer_changes_the_tokens_of_its_prompt(chat_tokenizer, make_row, template, data):
    template = Brackets() if template == "brackets" else template
    words = st.text(alphabet="ab\né ", max_size=12)
    instruction, given = data.draw(words), data.draw(words)
    answer = data.draw(words.map(lambda text: text * 20) | words) or "x"
    row = make_row(instruction or "a", given, [answer])
    full = len(encode_prompt(row, template, chat_tokenizer, 10_000).tokens)
    max_prompt = data.draw(st.integers(max(full - 20, 1), full + 5))
    max_length = max_prompt + data.draw(st.integers(1, 80))
    try:
        prompt = encode_prompt(row, template, chat_tokenizer, max_prompt)
    except RowError:
        with pytest.raises(RowError):
            encode_example(row, template, chat_tokenizer, max_prompt, max_length)
        return
    example = encode_example(row, template, chat_tokenizer, max_prompt, max_length)
    assert example.tokens[~example.targets].tolist() == prompt.tokens.tolist()
    assert example.cuts._replace(answer=0) == prompt.cuts
    assert len(example.tokens) <= max_length


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_template_words_survive_every_cut(tokenizer, make_row, data):
    words = st.text(alphabet="ab\né ", max_size=12)
    row = make_row(data.draw(words), data.draw(words), [data.draw(words) or "x"])
    max_prompt = data.draw(st.integers(3, 30))
    try:
        example = encode_example(
            row, Brackets(), tokenizer, max_prompt, data.draw(st.integers(4, 40))
        )
    except RowError:
        return
    prompt = tokenizer.convert_ids_to_tokens(example.tokens[~example.targets].tolist())
    assert len(prompt) <= max_prompt
    assert (prompt[0], prompt[-1], prompt.count("|")) == ("[", "]", 1)
    if not example.cuts.answer:
        assert read(tokenizer, example)[1] == row["outputs"][0] + "$"


def test_many_rows_give_what_each_gives_alone(tokenizer, make_row):
    encoder = Encoder("alpaca", tokenizer, 400, 500)
    rows = [make_row("q", "i", ["a"]), make_row("r"), make_row("s", "", ["\nb"])]
    several = encoder.examples(rows)
    assert isinstance(several[1], RowError)
    for index in (0, 2):
        alone = encoder.example(rows[index])
        assert several[index].tokens.tolist() == alone.tokens.tolist()
        assert several[index].targets.tolist() == alone.targets.tolist()


def test_a_tokenizer_without_end_of_text_is_refused(tokenizer_with):
    tokenizer = tokenizer_with()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no EOS token"):
        Encoder("alpaca", tokenizer, 8, 16)
