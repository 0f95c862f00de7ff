"""The tiny tokenizer, made once."""

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from tests.hf.tiny import CHAT_TEMPLATE, SPECIAL, make_tokenizer


@pytest.fixture(scope="session")
def tokenizer_model() -> Tokenizer:
    return make_tokenizer()


@pytest.fixture(scope="session")
def tokenizer(tokenizer_model: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_model,
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        unk_token=SPECIAL[0],
        pad_token=SPECIAL[2],
        chat_template=CHAT_TEMPLATE,
        model_max_length=64,
    )
