"""Tiny models, made once."""

import dataclasses

import jax
import pytest
from transformers import PreTrainedTokenizerFast

from adakd_jax.models.decoder import abstract_decoder, random_params
from tests.eval.tiny import TINY, with_ends
from tests.hf.tiny import CHAT_TEMPLATE, SPECIAL, TINY_LLAMA, make_pretrained, make_tokenizer


@pytest.fixture(scope="session")
def tiny_model():
    graphdef, _ = abstract_decoder(TINY)
    return graphdef, random_params(TINY, jax.random.key(3))


@pytest.fixture(scope="session")
def tiny_pretrained():
    """A model with a tokenizer that has a chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(),
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        unk_token=SPECIAL[0],
        pad_token=SPECIAL[2],
        chat_template=CHAT_TEMPLATE,
    )
    return make_pretrained(TINY_LLAMA, tokenizer)


@pytest.fixture(scope="session")
def silent_pretrained(tiny_pretrained):
    """The model with all logits 0: it writes token 0, a special one, which ends its answers."""
    scale = 0.0 * tiny_pretrained.params["final_norm"]["scale"]
    params = tiny_pretrained.params | {"final_norm": {"scale": scale}}
    return dataclasses.replace(with_ends(tiny_pretrained, 0), params=params)
