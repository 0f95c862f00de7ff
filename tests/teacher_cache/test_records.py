"""Records hold what was put in, to rounding, and nothing else is taken for one."""

import jax
import numpy as np
import pytest

from adakd_jax.data.tokenize import Example
from adakd_jax.teacher_cache.records import (
    Form,
    RecordError,
    example_digest,
    from_bytes,
    to_bytes,
)
from tests.teacher_cache.conftest import VOCABULARY, K, TableTeacher

# Half the distance of neighbours, relative: 11 and 8 bits of significand.
ROUNDING = {"float16": 2**-11, "bfloat16": 2**-8}


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("vocabulary", [VOCABULARY, 70_000])
def test_a_record_is_read_as_it_was_written(examples, dtype, vocabulary):
    form = Form(K, vocabulary, dtype)
    for example in examples:
        taught = TableTeacher().answer(example)
        record = to_bytes(form, example, taught)
        digest, read = from_bytes(form, record)
        assert digest == example_digest(example)
        np.testing.assert_array_equal(read.ids, taught.ids)
        np.testing.assert_array_equal(read.tail, taught.tail)
        np.testing.assert_allclose(read.log_probs, taught.log_probs, rtol=ROUNDING[dtype])
        np.testing.assert_array_equal(read.log_probs, form.rounded(taught).log_probs)
        id_bytes = 2 if vocabulary == VOCABULARY else 4
        assert len(record) == 16 + len(read.tail) * (K * (id_bytes + 2) + 4)


def test_large_ids_survive():
    example = Example(np.array([1, 69_999], np.int32), np.array([False, True]))
    taught = TableTeacher().answer(Example(np.array([1, 2], np.int32), example.targets))
    taught.ids[0, :] = 69_999, 65_537, 3, 2, 65_536
    form = Form(K, 70_000, "float16")
    np.testing.assert_array_equal(
        from_bytes(form, to_bytes(form, example, taught))[1].ids, taught.ids
    )


def test_damaged_records_are_refused(examples):
    form = Form(K, VOCABULARY, "float16")
    record = to_bytes(form, examples[3], TableTeacher().answer(examples[3]))
    for damaged in (record[:-1], record[:16], b""):
        with pytest.raises(RecordError, match="the cache is damaged"):
            from_bytes(form, damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t._replace(ids=t.ids[1:]), "has shapes"),
        (lambda t: t._replace(ids=t.ids + VOCABULARY), "its tokenizer is not the student's"),
        (lambda t: t._replace(ids=(t.ids * 0 + np.arange(K)).astype(np.int32)), "lacks the label"),
        (lambda t: t._replace(tail=t.tail * np.nan), "not finite"),
    ],
)
def test_what_is_no_answer_to_the_example_is_not_written(examples, change, message):
    taught = jax.tree.map(np.copy, TableTeacher().answer(examples[5]))
    with pytest.raises(RecordError, match=message):
        to_bytes(Form(K, VOCABULARY, "float16"), examples[5], change(taught))


def test_the_digest_names_tokens_and_targets():
    tokens, targets = np.array([1, 2, 3], np.int32), np.array([False, True, True])
    same = example_digest(Example(tokens.copy(), targets.copy()))
    assert same == example_digest(Example(tokens, targets))
    assert same != example_digest(Example(tokens, ~targets))
    assert same != example_digest(Example(tokens + 1, targets))
