"""Whether a teacher still says what is stored."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from adakd_jax.axes import CachedTeacher
from adakd_jax.data.tokenize import Example
from adakd_jax.teacher_cache.manifest import TeacherCacheError

# Says of examples what a teacher thinks: (place among them, NumPy arrays [n, …]), in any order.
Teach = Callable[[Sequence[Example]], Iterator[tuple[int, CachedTeacher]]]
# Nats per token. Rounding makes below 0.01, even to bfloat16; another teacher, tenths.
TOLERANCE = 0.05


class Agreement(NamedTuple):
    """Differences of stored and new answers: nats per token, and of a single log-probability."""

    mean: float
    largest: float
    tokens: int


def agreement(stored: Sequence[CachedTeacher], now: Sequence[CachedTeacher]) -> Agreement:
    """Compares two answers to the same examples.

    The mean over tokens of Σ p·|Δ log p|, over the next tokens that both hold; the probability of
    those that only the new one holds counts as a nat (near-ties of the last place fall either way).

    Args:
      stored: NumPy arrays [n, …] of each example.
      now: likewise.
    """
    per_token, largest = [], 0.0
    for old, new in zip(stored, now, strict=True):
        same = np.asarray(old.ids)[:, :, None] == np.asarray(new.ids)[:, None, :]
        old_log_p = np.max(np.where(same, old.log_probs[:, :, None], -np.inf), axis=1)
        in_both, p = same.any(axis=1), np.exp(new.log_probs)
        gap = np.abs(np.where(in_both, new.log_probs - np.where(in_both, old_log_p, 0.0), 0.0))
        per_token.append(np.sum(p * np.where(in_both, gap, 1.0), axis=1))
        largest = max(largest, float(gap.max()))
    each = np.concatenate(per_token)
    return Agreement(float(each.mean()), largest, len(each))


def check_same_teacher(found: Agreement, folder: object) -> None:
    """Refuses a teacher that says something else.

    Raises:
      TeacherCacheError: the difference is more than rounding makes.
    """
    if found.mean > TOLERANCE:
        raise TeacherCacheError(
            f"teacher.cache: {folder} is of another teacher: over {found.tokens} response tokens "
            f"it is {found.mean:.3f} nats a token from what this one says (rounding: below "
            f"{TOLERANCE}); valid: the teacher that it was made with, or another --teacher.cache"
        )


def answers(teach: Teach, examples: Sequence[Example]) -> list[CachedTeacher]:
    """A teacher's answers to examples, in their order."""
    found = dict(teach(examples))
    return [found[place] for place in range(len(examples))]
