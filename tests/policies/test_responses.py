"""Responses that a model has just written are learned from as the data set's are."""

import numpy as np
import pytest

from adakd_jax.axes import IGNORE
from adakd_jax.config import DataConfig, FileSource, GenerationConfig, TrainingConfig
from adakd_jax.data.examples import EncodingReport, Examples
from adakd_jax.data.loader import TrainingBatches
from adakd_jax.data.tokenize import Example
from adakd_jax.policies import responses
from adakd_jax.policies.responses import prompt_of, respond

EOS = 9


def example(*targets):
    return Example(np.arange(10, 10 + len(targets), dtype=np.int32), np.array(targets, bool))


def test_the_prompt_ends_where_the_last_answer_begins():
    assert prompt_of(example(0, 0, 0, 1, 1)).tolist() == [10, 11, 12]
    assert prompt_of(example(0, 1, 1, 0, 0, 1)).tolist() == [10, 11, 12, 13, 14]
    with pytest.raises(ValueError, match=r"no prompt to answer.*template alpaca or chat"):
        prompt_of(example(1, 1, 1))


def test_labels_of_written_responses_are_aligned_and_keep_eos(monkeypatch):
    answers = {3: [50, 51, EOS], 2: list(range(60, 80))}

    def answer(graphdef, params, prompts, *settings, **options):
        return [answers[len(prompt)] for prompt in prompts]

    monkeypatch.setattr(responses, "generate", answer)
    written = respond(
        None, None, [example(0, 0, 0, 1), example(0, 0, 1)], GenerationConfig(),
        eos_ids=(EOS,), pad_id=0, seed=0, max_length=8,
    )  # fmt: skip
    assert [one.tokens.tolist() for one in written] == [
        [10, 11, 12, 50, 51, EOS],
        [10, 11, 60, 61, 62, 63, 64, 65],
    ]
    batch = batches(length=8).pack(written)
    assert batch.tokens.shape == (1, 2, 8)
    rows = {row[0, 0]: row for row in np.stack([batch.tokens[0], batch.labels[0]], axis=1)}
    assert set(rows) == {10}
    labels = sorted(batch.labels[0].tolist(), key=lambda row: row.count(IGNORE))
    assert labels == [
        [IGNORE, 60, 61, 62, 63, 64, 65, IGNORE],
        [IGNORE, IGNORE, 50, 51, EOS, IGNORE, IGNORE, IGNORE],
    ]


def batches(length, rows=2):
    lengths = np.full(6, 4)
    tokens = np.arange(24, dtype=np.int32)
    examples = Examples(tokens, tokens % 4 > 1, lengths, np.arange(6), EncodingReport())
    data = DataConfig(train=FileSource(path="unused"), max_length=length, max_prompt_length=4)
    return TrainingBatches(examples, data, TrainingConfig(steps=3, batch_rows=rows), 0)


def test_more_rows_than_a_step_has_become_more_micro_batches():
    run = batches(length=8)
    many = [example(*[0] * 4, *[1] * 2) for _ in range(5)]  # one a row: five rows for two
    batch = run.pack(many)
    assert batch.tokens.shape == (4, 2, 8)
    assert (batch.segments.reshape(8, 8).max(axis=1) > 0).sum() == 5
    assert run.pack(many[:2]).tokens.shape == (1, 2, 8)
