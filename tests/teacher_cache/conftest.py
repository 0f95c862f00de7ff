"""Examples, and a teacher that is a function of the last token."""

import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.axes import CachedTeacher
from adakd_jax.data.examples import EncodingReport, Examples
from adakd_jax.distill import keep_top
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
        kept = keep_top(
            jnp.asarray(self.logits[example.tokens[places]]),
            jnp.asarray(example.tokens[places + 1]),
            self.k,
        )
        return CachedTeacher(*map(np.asarray, kept))

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
