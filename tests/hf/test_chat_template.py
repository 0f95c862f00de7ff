import copy
import dataclasses

import pytest

from adakd_jax.config.chat import ChatConfig
from adakd_jax.eval.answers import end_tokens
from adakd_jax.hf.chat_template import ending_turns, with_template
from adakd_jax.hf.export import export_config
from tests.hf.tiny import CHAT_TEMPLATE, SPECIAL, TINY_LLAMA, make_pretrained

OTHER = CHAT_TEMPLATE.replace("assistant", "model")


def with_tokenizer(model, **changes):
    tokenizer = copy.deepcopy(model.tokenizer)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return dataclasses.replace(model, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def chat_llama(tokenizer):
    return make_pretrained(TINY_LLAMA, tokenizer)


@pytest.fixture(scope="module")
def base(chat_llama):
    """A base model: ChatML ends turns with <|im_end|>, but its EOS is <|endoftext|>."""
    return with_tokenizer(chat_llama, eos_token=SPECIAL[0], pad_token=SPECIAL[0])


@pytest.mark.parametrize(
    ("name", "student", "teacher", "chosen", "said"),
    [
        (None, CHAT_TEMPLATE, CHAT_TEMPLATE, CHAT_TEMPLATE, None),
        (None, CHAT_TEMPLATE, None, CHAT_TEMPLATE, None),
        (None, CHAT_TEMPLATE, OTHER, CHAT_TEMPLATE, "the teacher's is another"),
        (None, None, OTHER, OTHER, "the teacher's, as the student has none"),
        ("teacher", CHAT_TEMPLATE, OTHER, OTHER, "teacher"),
        ("student", CHAT_TEMPLATE, OTHER, CHAT_TEMPLATE, "student"),
        ("rag", {"default": CHAT_TEMPLATE, "rag": OTHER}, None, OTHER, "rag"),
        ("rag", CHAT_TEMPLATE, {"default": CHAT_TEMPLATE, "rag": OTHER}, OTHER, "rag"),
    ],
)
def test_whose_template_is_used_is_said(chat_llama, name, student, teacher, chosen, said):
    model = with_tokenizer(chat_llama, chat_template=student)
    taught = with_tokenizer(chat_llama, chat_template=teacher).tokenizer
    told, note = with_template(model, ChatConfig(template=name), taught)
    assert told.tokenizer.chat_template == chosen
    assert told.source.chat_template in (chosen, chat_llama.source.chat_template)
    assert (note is None) if said is None else (said in note)
    assert model.tokenizer.chat_template == student


def test_a_template_may_be_a_file(chat_llama, tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text(OTHER)
    told, _ = with_template(chat_llama, ChatConfig(template=str(file)))
    assert told.tokenizer.chat_template == OTHER
    with pytest.raises(ValueError, match=r"none\.jinja cannot be read"):
        with_template(chat_llama, ChatConfig(template=str(tmp_path / "none.jinja")))


@pytest.mark.parametrize(
    ("name", "template", "message"),
    [
        ("rag", CHAT_TEMPLATE, "no chat template 'rag'; valid: student, a .jinja file"),
        (None, None, "there is no chat template; valid: a .jinja file, or data.template alpaca"),
    ],
)
def test_a_template_that_is_not_there_is_refused(chat_llama, name, template, message):
    model = with_tokenizer(chat_llama, chat_template=template)
    with pytest.raises(ValueError, match=message):
        with_template(model, ChatConfig(template=name))


def test_answers_end_as_the_template_ends_a_turn(base):
    turn, text = (base.tokenizer.convert_tokens_to_ids(SPECIAL[n]) for n in (2, 0))
    told = ending_turns(base, ChatConfig())
    assert told.tokenizer.eos_token == SPECIAL[2] and told.tokenizer.pad_token == SPECIAL[0]
    assert told.source.generation_config["eos_token_id"] == [turn, text]
    assert export_config(told)["eos_token_id"] == [turn, text]
    assert base.tokenizer.eos_token == SPECIAL[0]
    # Whoever answers with it stops there, exported or not.
    assert end_tokens(base) == end_tokens(told) == (text, turn)


def test_a_template_that_writes_eos_itself_keeps_it(base):
    told = with_tokenizer(base, chat_template="{{ eos_token }}" + CHAT_TEMPLATE)
    ended = ending_turns(told, ChatConfig())
    assert ended.tokenizer.eos_token == SPECIAL[0]
    assert len(ended.source.generation_config["eos_token_id"]) == 2


def test_a_model_whose_turns_end_with_eos_stays_as_it_is(chat_llama):
    told = ending_turns(chat_llama, ChatConfig())
    assert told.tokenizer.eos_token == chat_llama.tokenizer.eos_token
    assert told.source.generation_config["eos_token_id"] == chat_llama.tokenizer.eos_token_id
