import copy
import dataclasses

import pytest

from adakd_jax.config import GenerationConfig
from adakd_jax.eval.answers import answer_prompts, end_tokens
from adakd_jax.eval.generate import generate
from adakd_jax.hf.vocabulary import UnknownTokensError
from tests.eval.tiny import with_ends


def test_ends_are_the_tokenizers_and_the_generation_configs(tiny_pretrained):
    eos = tiny_pretrained.tokenizer.eos_token_id
    assert end_tokens(tiny_pretrained) == (eos,)
    assert end_tokens(with_ends(tiny_pretrained, 9)) == tuple(sorted((eos, 9)))
    assert end_tokens(with_ends(tiny_pretrained, [9, 11, eos])) == tuple(sorted((eos, 9, 11)))
    assert end_tokens(dataclasses.replace(tiny_pretrained, tokenizer=None)) == ()


def test_answers_are_texts_that_say_what_ended_them(tiny_pretrained):
    settings = GenerationConfig(max_new_tokens=6, batch_size=2)
    tokenizer = tiny_pretrained.tokenizer
    prompts = [tokenizer.encode("A good"), tokenizer.encode("The small boat")]
    graphdef, params = tiny_pretrained.graphdef, tiny_pretrained.params
    tokens = generate(graphdef, params, prompts, settings, eos_ids=(-1, -2), pad_id=0)
    end = next(token for token in tokens[0][1:] if token not in tokens[1])
    answers = answer_prompts(with_ends(tiny_pretrained, end), prompts, settings)
    first = tokens[0][: tokens[0].index(end) + 1]
    assert answers[0] == (tokenizer.decode(first), len(first), "eos")
    assert answers[1] == (tokenizer.decode(tokens[1]), 6, "length")


def test_special_tokens_are_not_part_of_the_text(silent_pretrained):
    settings = GenerationConfig(max_new_tokens=6, batch_size=2)
    assert answer_prompts(silent_pretrained, [[5, 6]], settings) == [("", 1, "eos")]


def test_parameters_may_be_given(tiny_pretrained, silent_pretrained):
    settings = GenerationConfig(max_new_tokens=6, batch_size=2)
    params = silent_pretrained.params
    assert answer_prompts(tiny_pretrained, [[5, 6]], settings, params=params) == [("", 6, "length")]


def test_a_model_that_can_end_no_answer_is_refused(tiny_pretrained):
    tokenizer = copy.deepcopy(tiny_pretrained.tokenizer)
    tokenizer.add_special_tokens({"eos_token": "<turn ends>"})
    tokenizer.chat_template = None
    grown = dataclasses.replace(tiny_pretrained, tokenizer=tokenizer)
    settings = GenerationConfig(max_new_tokens=6, batch_size=2)
    with pytest.raises(UnknownTokensError, match=r"its answers end with .*'<turn ends>' \(320\)"):
        answer_prompts(grown, [[5, 6]], settings)
    with pytest.raises(UnknownTokensError, match=r"the prompts hold .*'<turn ends>' \(320\)"):
        answer_prompts(with_ends(grown, 9), [[5, 320]], settings)
