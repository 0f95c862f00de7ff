"""A cache is written once, goes on after an interruption, and serves what it was made for only."""

import numpy as np
import pytest

from adakd_jax.axes import IGNORE
from adakd_jax.console import Console
from adakd_jax.data.assemble import assemble_rows
from adakd_jax.data.examples import Examples
from adakd_jax.teacher_cache.manifest import Manifest, TeacherCacheError
from adakd_jax.teacher_cache.reading import Taught, TeacherCache
from adakd_jax.teacher_cache.records import Form, RecordError
from adakd_jax.teacher_cache.writing import write_cache
from tests.teacher_cache.conftest import VOCABULARY, K, TableTeacher

QUIET = Console(quiet=True)
FORM = Form(K, VOCABULARY, "float16")


def manifest_of(examples, **changes):
    values = {
        "teacher": "table",
        "licence": None,
        "source": "weights",
        "form": FORM,
        "examples": len(examples),
        "response_tokens": examples.report.response_tokens,
        "shard_examples": 4,
        "data": {"template": "alpaca", "max_length": 16},
        "tokenizer": "none",
    }
    return Manifest(**(values | changes))


def write(folder, examples, teacher=None, **changes):
    teacher = teacher or TableTeacher()
    write_cache(folder, examples, manifest_of(examples, **changes), teacher, QUIET)
    return teacher


def some(examples, numbers):
    """Examples of their own, as another run has them."""
    chosen = [examples[number] for number in numbers]
    return Examples(
        np.concatenate([example.tokens for example in chosen]),
        np.concatenate([example.targets for example in chosen]),
        np.array([len(example.tokens) for example in chosen]),
        np.asarray(numbers) + 100,
        examples.report,
    )


def same(cache, examples, teacher):
    for number, example in enumerate(examples):
        expected = FORM.rounded(teacher.answer(example))
        for found, wanted in zip(cache[number], expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_an_interrupted_cache_goes_on_with_what_is_missing(tmp_path, examples):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, examples, TableTeacher(stop_after=6))
    assert len(list(tmp_path.glob("*.array_record"))) == 1
    with pytest.raises(TeacherCacheError, match=r"lacks 2 of 3 files.*goes on where"):
        TeacherCache(tmp_path)
    teacher = write(tmp_path, examples)
    assert teacher.asked == 7 + 1  # one of the first file, to know the teacher by
    same(TeacherCache(tmp_path), examples, teacher)
    assert write(tmp_path, examples).asked == 0
    assert not list(tmp_path.glob("*.partial"))


def test_a_cache_is_of_one_teacher(tmp_path, examples):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, examples, TableTeacher(stop_after=6))
    with pytest.raises(TeacherCacheError, match="is of another teacher: over"):
        write(tmp_path, examples, TableTeacher(seed=1))


def test_other_weights_behind_the_same_name_are_not_mixed_in(tmp_path, examples):
    """However little they say else: the file of the first is not one of the second."""
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, examples, TableTeacher(stop_after=6), weights="one")
    with pytest.raises(TeacherCacheError, match="weights: one -> another"):
        write(tmp_path, examples, weights="another")
    write(tmp_path, examples, weights="one")
    # A cache from before it was noted is taken at its word.
    old = tmp_path / "old"
    with pytest.raises(KeyboardInterrupt):
        write(old, examples, TableTeacher(stop_after=6))
    write(old, examples, weights="another")


def test_another_cache_is_not_mixed_in(tmp_path, examples):
    write(tmp_path, examples)
    with pytest.raises(TeacherCacheError, match=r"form\.dtype: float16 -> bfloat16"):
        write(tmp_path, examples, form=Form(K, VOCABULARY, "bfloat16"))
    other = some(examples, [*range(10), 3])
    with pytest.raises(TeacherCacheError, match="tokens of the examples"):
        write(tmp_path, other)


def test_batches_have_the_teacher_beside_the_labels(tmp_path, examples):
    write(tmp_path, examples)
    fewer = some(examples, [7, 2, 9, 0])
    taught = Taught(TeacherCache(tmp_path), fewer)
    rows = [np.array([1, 3]), np.array([], np.int64), np.array([2]), np.array([0])]
    found, batch = taught.rows(rows, 16), assemble_rows(fewer, rows, 16)
    is_response = batch.labels != IGNORE
    logits = TableTeacher().logits[batch.tokens]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    labelled = (found.ids == batch.labels[..., None]) & is_response[..., None]
    assert (labelled.sum(-1) == is_response).all()
    expected = np.take_along_axis(log_p, np.maximum(batch.labels, 0)[..., None], -1)[..., 0]
    held = np.where(labelled, found.log_probs, 0.0).sum(-1)
    np.testing.assert_allclose(held[is_response], expected[is_response], rtol=1e-3)
    total = np.exp(found.log_probs).sum(-1) + np.exp(found.tail)
    np.testing.assert_allclose(total[is_response], 1.0, atol=2e-3)
    assert not found.ids[~is_response].any() and not found.tail[~is_response].any()


def test_a_stale_cache_is_refused(tmp_path, examples):
    write(tmp_path, some(examples, range(8)))
    cache = TeacherCache(tmp_path)
    with pytest.raises(TeacherCacheError) as refused:
        Taught(cache, examples, {"template": "chat", "max_length": 16})
    told = str(refused.value)
    assert "does not hold 3 of the 11 training examples, the first of row 108" in told
    assert "template: alpaca -> chat" in told and "max_length" not in told
    with pytest.raises(TeacherCacheError, match="another tokenizer, or the file has changed"):
        Taught(cache, examples)


def test_files_of_different_caches_are_noticed(tmp_path, examples):
    names = manifest_of(examples).shard_name
    write(tmp_path, examples)
    (tmp_path / names(0)).write_bytes((tmp_path / names(1)).read_bytes())
    taught = Taught(TeacherCache(tmp_path), examples)
    taught[5]
    with pytest.raises(RecordError, match="holds another example where its index names number 1"):
        taught[1]


def test_no_cache_and_old_caches_say_what_to_do(tmp_path, examples):
    with pytest.raises(TeacherCacheError, match=r"no manifest\.json\); make it with"):
        TeacherCache(tmp_path / "none")
    with pytest.raises(TeacherCacheError, match="is remote; copy it"):
        TeacherCache("gs://bucket/cache")
    write(tmp_path, examples)
    file = tmp_path / "manifest.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 0'))
    with pytest.raises(TeacherCacheError, match="has format 0, this version reads 1"):
        TeacherCache(tmp_path)
