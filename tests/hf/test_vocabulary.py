import copy
import dataclasses

import pytest

from adakd_jax.hf.export import export_config
from adakd_jax.hf.vocabulary import (
    Embedding,
    UnknownTokensError,
    check_known,
    ids_from,
    tokenizer_size,
    usable_vocabulary,
)
from tests.hf.tiny import TINY_LLAMA, make_pretrained


def with_added(tokenizer, count):
    added = copy.deepcopy(tokenizer)
    added.add_special_tokens({"additional_special_tokens": [f"<{n}>" for n in range(count)]})
    return added


def test_what_can_be_used_is_what_tokenizers_and_embeddings_all_have(tokenizer):
    padded = make_pretrained(TINY_LLAMA | {"vocab_size": 336}, tokenizer)
    longer = dataclasses.replace(padded, tokenizer=with_added(tokenizer, 20))
    bare = make_pretrained(TINY_LLAMA | {"vocab_size": 330})
    assert tokenizer_size(longer.tokenizer) == 340
    assert usable_vocabulary(padded) == 320
    assert usable_vocabulary(longer) == 336
    assert usable_vocabulary(longer, bare) == 330
    assert usable_vocabulary(longer, bare, padded) == 320


def test_ids_from_a_size_are_found_wherever_they_stand():
    assert ids_from([[1, 2], [], [9, 3, 7], [7]], 7) == {7, 9}
    assert ids_from([], 7) == set()


def test_the_model_that_lacks_tokens_is_named_with_a_few_of_them(tokenizer):
    added = with_added(tokenizer, 20)
    models = [Embedding("the student", 340), Embedding("the teacher", 320)]
    check_known("rows hold", set(range(320)), models, added)
    with pytest.raises(UnknownTokensError) as refused:
        check_known("rows hold", set(range(318, 340)), models, added)
    assert "rows hold tokens that the teacher has no embedding for: '<0>' (320), " in str(
        refused.value
    )
    assert "'<4>' (324) and 15 more; it has 320 embeddings" in str(refused.value)
    assert "at least 340 (resize_token_embeddings" in str(refused.value)


def test_no_model_is_exported_with_tokens_that_it_has_not(tokenizer):
    model = make_pretrained(TINY_LLAMA, with_added(tokenizer, 1))
    with pytest.raises(UnknownTokensError, match=r"the tokenizer has tokens .*'<0>' \(320\)"):
        export_config(model)


def test_a_config_that_contradicts_itself_is_exported_as_it_was_read():
    plain = {"rope_type": "default", "rope_theta": 5e5}
    scaled = {"rope_type": "linear", "factor": 4.0}
    model = make_pretrained(TINY_LLAMA | {"rope_parameters": plain, "rope_scaling": scaled})
    exported = export_config(model)
    assert exported["rope_parameters"] == scaled | {"rope_theta": TINY_LLAMA["rope_theta"]}
    assert exported["rope_scaling"] == scaled
    assert exported["rope_theta"] == TINY_LLAMA["rope_theta"]
