"""Examples, and a teacher that is a function of the last token."""

import numpy as np
import pytest

from adakd_jax.axes import CachedTeacher
from adakd_jax.data.examples import EncodingReport, Examples
from adakd_jax.teacher_cache.records import response_places

VOCABULARY, K = 23, 5


def teacher_logits(seed=0):
    return np.random.default_rng(seed).normal(0.0, 2.0, (VOCABULARY, VOCABULARY)).astype(np.float32)


class TableTeacher:
    """Answers from a table; counts what it is asked."""

    def __init__(self, seed=0, k=K, stop_after=None):
        self.logits, self.k, self.asked, self.stop_after = teacher_logits(seed), k, 0, stop_after

    def answer(self, example):
        places = response_places(example)
        z, labels = self.logits[example.tokens[places]], example.tokens[places + 1]
        log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
        ids = np.argsort(-log_p, axis=-1)[:, : self.k].astype(np.int32)
        absent = (ids != labels[:, None]).all(-1)
        ids[absent, -1] = labels[absent]
        others = np.exp(log_p)
        np.put_along_axis(others, ids, 0.0, axis=-1)
        return CachedTeacher(ids, np.take_along_axis(log_p, ids, -1), np.log(others.sum(-1)))

    def __call__(self, examples):
        for place in reversed(range(len(examples))):
            if self.asked == self.stop_after:
                raise KeyboardInterrupt
            self.asked += 1
            yield place, self.answer(examples[place])


@pytest.fixture(scope="session")
def examples():
    """Eleven examples of 4 to 14 tokens; the first two tokens and some others are no targets."""
    rng = np.random.default_rng(1)
    lengths = np.arange(4, 15)
    tokens = rng.integers(0, VOCABULARY, lengths.sum()).astype(np.int32)
    targets = rng.random(lengths.sum()) < 0.7
    for start, length in zip(np.cumsum(lengths) - lengths, lengths, strict=True):
        targets[start : start + 2] = False
        targets[start + length - 1] = True
    count = sum(
        int(targets[s : s + n].sum())
        for s, n in zip(np.cumsum(lengths) - lengths, lengths, strict=True)
    )
    report = EncodingReport(examples=11, response_tokens=count)
    return Examples(tokens, targets, lengths, np.arange(11) + 100, report)
