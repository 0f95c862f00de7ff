import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adakd_jax.axes import IGNORE, TokenBatch
from adakd_jax.eval.calibration import BINS, calibration
from adakd_jax.eval.likelihood import DocumentSums, document_sums, likelihood
from adakd_jax.models.decoder import abstract_decoder, random_params
from tests.eval.tiny import TINY

ROWS, LENGTH = 2, 24


def make_batch(seed, share):
    """Two documents and padding per row; labels on about `share` of the documents' positions."""
    rng = np.random.default_rng(seed)
    segments = np.repeat([[1, 2, 0]], ROWS, axis=0).repeat([10, 9, 5], axis=1).astype(np.int32)
    positions = np.tile(np.concatenate([np.arange(10), np.arange(9), np.arange(5)]), (ROWS, 1))
    tokens = rng.integers(61, size=(ROWS, LENGTH)).astype(np.int32)
    learned = (rng.random((ROWS, LENGTH)) < share) & (segments > 0)
    labels = np.where(learned, rng.integers(61, size=(ROWS, LENGTH)), IGNORE).astype(np.int32)
    return TokenBatch(tokens, labels, positions.astype(np.int32), segments)


@pytest.fixture(scope="module")
def batches():
    return [make_batch(0, 0.6), make_batch(1, 0.1)]


@pytest.fixture(scope="module")
def teacher(tiny_model):
    """The student with some noise, and a vocabulary padded by three tokens."""
    config = dataclasses.replace(TINY, vocab_size=64)
    fresh = random_params(config, jax.random.key(8))

    def mix(new, known):
        mixed = 0.2 * np.array(new)
        mixed[tuple(map(slice, known.shape))] += known
        return jnp.asarray(mixed)

    return abstract_decoder(config)[0], jax.tree.map(mix, fresh, tiny_model[1])


def log_softmax(scores):
    shifted = scores - scores.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def oracle(student, teacher, batches):
    """Every definition in float64 on full logits, one token at a time."""
    rows = []
    for batch in batches:
        scores = []
        for graphdef, params in (student, teacher):
            model = nnx.merge(graphdef, params)
            hidden = np.asarray(
                jax.jit(model)(*map(jnp.asarray, (batch.tokens, batch.positions, batch.segments))),
                np.float64,
            )
            scores.append(hidden @ np.asarray(model.head().weight, np.float64).T)
        for row, place in np.argwhere(batch.labels != IGNORE):
            z, t = (each[row, place] for each in scores)
            label = batch.labels[row, place]
            q, p = log_softmax(z[:61]), log_softmax(t[:61])
            rows.append(
                [
                    -log_softmax(z)[label],
                    -log_softmax(t)[label],
                    np.sum(np.exp(p) * (p - q)),
                    np.sum(np.exp(q) * (q - p)),
                    float(z.argmax() == t.argmax()),
                ]
            )
    return len(rows), np.mean(rows, axis=0)


def test_means_are_those_of_the_definitions(tiny_model, teacher, batches):
    # Chunks of 5 tokens: several, the last one not full.
    result = likelihood(*tiny_model, *teacher, batches, chunk_size=5)
    tokens, means = oracle(tiny_model, teacher, batches)
    assert result.tokens == tokens
    assert 0 < means[-1] < 1
    names = ("nll", "nll_teacher", "forward_kl", "reverse_kl", "top1_agreement")
    np.testing.assert_allclose([getattr(result, name) for name in names], means, rtol=2e-5)
    assert result.to_dict().keys() == {"tokens", *names, "calibration_error"}


def test_sums_of_documents_are_those_of_their_tokens(tiny_model, teacher, batches):
    measured = document_sums(*tiny_model, *teacher, batches, chunk_size=5)
    expected = []
    for batch in batches:
        for row, segment in np.ndindex(ROWS, 2):
            own = (batch.segments == segment + 1) & (np.arange(ROWS) == row)[:, None]
            alone = batch._replace(labels=np.where(own, batch.labels, IGNORE))
            tokens = int((alone.labels != IGNORE).sum())
            if tokens:
                expected.append([tokens, *tokens * oracle(tiny_model, teacher, [alone])[1]])
    expected = np.asarray(expected)
    np.testing.assert_array_equal(measured.tokens, expected[:, 0])
    np.testing.assert_allclose(measured.sums, expected[:, 1:], rtol=2e-5)
    whole = likelihood(*tiny_model, *teacher, batches, chunk_size=5)
    assert measured.likelihood() == whole


def test_calibration_is_that_of_every_response_token(tiny_model, teacher, batches):
    found = document_sums(*tiny_model, *teacher, batches, chunk_size=5).calibration
    model, rows = nnx.merge(*tiny_model), []
    for batch in batches:
        hidden = np.asarray(
            jax.jit(model)(*map(jnp.asarray, (batch.tokens, batch.positions, batch.segments))),
            np.float64,
        )
        log_p = log_softmax(hidden @ np.asarray(model.head().weight, np.float64).T)
        learned = batch.labels != IGNORE
        right = log_p[learned].argmax(-1) == batch.labels[learned]
        rows += zip(np.exp(log_p[learned].max(-1)), right, strict=True)
    error = 0.0
    for low in np.arange(15) / 15:
        inside = [row for row in rows if low < row[0] <= low + 1 / 15]
        if inside:
            confidence, right = np.mean(inside, axis=0)
            error += len(inside) / len(rows) * abs(confidence - right)
    assert found.tokens.sum() == len(rows) and (found.tokens > 0).sum() > 2
    np.testing.assert_allclose(found.expected_error, error, rtol=1e-5)


def test_a_student_equals_itself(tiny_model, batches):
    result = likelihood(*tiny_model, *tiny_model, batches)
    assert result.forward_kl == result.reverse_kl == 0.0
    assert result.top1_agreement == 1.0
    assert result.nll == result.nll_teacher


def test_without_a_teacher(tiny_model, teacher, batches):
    alone = likelihood(*tiny_model, None, None, batches, chunk_size=5)
    both = likelihood(*tiny_model, *teacher, batches, chunk_size=5)
    assert alone.nll == pytest.approx(both.nll, rel=1e-6)
    assert alone.calibration_error == pytest.approx(both.calibration_error, rel=1e-6)
    assert alone.to_dict().keys() == {"tokens", "nll", "calibration_error"}


def test_nothing_to_measure_is_an_error(tiny_model, batches):
    empty = batches[0]._replace(labels=np.full((ROWS, LENGTH), IGNORE, np.int32))
    with pytest.raises(ValueError, match="at least one response token"):
        likelihood(*tiny_model, None, None, [empty], chunk_size=5)


def test_intervals_resample_documents():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 50, size=200)
    means = rng.normal(2.0, 0.5, size=(200, 1)) * [1, 1, 2, 3, 0.1]
    sums, calibrated = means * tokens[:, None], calibration(np.ones((BINS, 3)))
    found = DocumentSums(tokens, sums, True, calibrated).intervals(seed=1)
    assert list(found) == ["nll", "nll_teacher", "forward_kl", "reverse_kl", "top1_agreement"]
    error = 0.5 * np.sqrt(np.sum(tokens**2)) / tokens.sum()  # of a mean weighted by tokens
    low, high = found["nll"]
    assert low < 2.0 < high and high - low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert found["reverse_kl"] == pytest.approx((3 * low, 3 * high))
    alone = DocumentSums(tokens, sums, False, calibrated).intervals(seed=1)
    assert alone == {"nll": (low, high)}


def test_a_token_that_a_model_has_not_is_refused(tiny_model, teacher, batches):
    """It would be NaN, or the likelihood of another token."""
    for name in ("tokens", "labels"):
        changed = np.array(getattr(batches[0], name))
        changed[0, 3] = 62
        with pytest.raises(ValueError, match="a batch holds token 62, but a model has 61 only"):
            likelihood(*teacher, *tiny_model, [batches[0]._replace(**{name: changed})])
