"""Which responses a step learns from, and what DistiLLM remembers."""

import numpy as np
import pytest

from adakd_jax.config import DistiLlm, Gkd
from adakd_jax.data.tokenize import Example
from adakd_jax.policies.replay import adapted, drawn, empty_replay, remember
from adakd_jax.policies.source import source_of, step_random

TOTAL = 4000


def shares(config, replay=None, total=TOTAL):
    """How often each source is chosen in the first and in the second half of a run."""
    found = [
        source_of(config, replay, seed=5, step=step, total_steps=total) for step in range(total)
    ]
    halves = found[: total // 2], found[total // 2 :]
    names = ("data", "student", "replay")
    return [{name: half.count(name) / len(half) for name in names} for half in halves]


def full(phi, capacity=4):
    replay = empty_replay(capacity, 8)
    return replay._replace(count=np.int32(capacity), probability=np.float32(phi))


def test_gkd_asks_the_student_as_often_as_configured():
    for half in shares(Gkd(student_fraction=0.3)):
        assert half["student"] == pytest.approx(0.3, abs=0.04) and half["replay"] == 0
    assert shares(Gkd(student_fraction=0.0))[0]["data"] == 1
    first, second = shares(Gkd(schedule="cosine"))
    # The means of ½(1 + cos πx) over the halves are ½ ± 1/π.
    assert first["student"] == pytest.approx(0.5 + 1 / np.pi, abs=0.04)
    assert second["student"] == pytest.approx(0.5 - 1 / np.pi, abs=0.04)


def test_distillm_with_a_full_buffer():
    first, second = shares(DistiLlm(capacity=4), full(0.6))
    for half in (first, second):
        assert half["student"] == pytest.approx(0.3, abs=0.04)
        assert half["replay"] == pytest.approx(0.3, abs=0.04)
    first, second = shares(DistiLlm(capacity=4, split="increasing"), full(0.8))
    assert first["student"] == pytest.approx(0.8 * 0.25, abs=0.04)
    assert second["student"] == pytest.approx(0.8 * 0.75, abs=0.04)
    first, second = shares(DistiLlm(capacity=4, split="decreasing"), full(0.8))
    assert first["student"] == pytest.approx(0.8 * 0.75, abs=0.04)


def test_distillm_fills_its_buffer_first_and_replays_nothing_that_is_not_there():
    partly = full(0.6)._replace(count=np.int32(3))
    assert shares(DistiLlm(capacity=4), partly)[0]["replay"] == 0
    assert shares(DistiLlm(capacity=4), partly)[0]["student"] == pytest.approx(0.6, abs=0.04)
    assert shares(DistiLlm(capacity=4), full(0.0))[0]["data"] == 1


def test_the_buffer_forgets_the_oldest_and_gives_back_what_it_was_given():
    examples = [
        Example(np.arange(1, n + 1, dtype=np.int32), np.arange(n) >= n - 2) for n in (3, 5, 8, 4, 6)
    ]
    replay = remember(remember(empty_replay(4, 8), examples[:3]), examples[3:])
    assert int(replay.count) == 4 and int(replay.next) == 1
    back = drawn(replay, 10, step_random(0, 0, 0))
    assert sorted(len(example.tokens) for example in back) == [4, 5, 6, 8]
    for example in back:
        length = len(example.tokens)
        np.testing.assert_array_equal(example.tokens, np.arange(1, length + 1))
        np.testing.assert_array_equal(example.targets, np.arange(length) >= length - 2)
    assert len(drawn(replay, 2, step_random(0, 1, 0))) == 2
    before = empty_replay(4, 8)
    remember(before, examples)
    assert int(before.count) == 0 and not before.tokens.any()


def test_the_students_responses_are_used_more_when_the_held_out_loss_has_risen():
    def path(losses, **settings):
        replay, found = empty_replay(1, 8), []
        for loss in losses:
            replay = adapted(replay, loss, DistiLlm(**settings))
            found.append(round(float(replay.probability), 5))
        return found

    # From 3.0, before training; then from 3.2, whatever lies between; 1 is the end.
    losses = (3.0, 3.05, 3.2, 3.0, 3.2, 3.4, 3.6, 3.8)
    assert path(losses, rise=0.4) == [0, 0, 0.4, 0.4, 0.4, 0.8, 1.0, 1.0]
    # Overfitting that creeps up counts, though no two evaluations are far apart.
    creeping = [2.0 + 0.0625 * n for n in range(9)]
    assert path(creeping, loss_eps=0.125) == [0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4]
    # A rise of exactly loss_eps is one, in the float32 of a checkpoint too.
    assert path((2.3, 2.4, 2.5)) == [0, 0.1, 0.2]
    # Better than before training, and worse than an evaluation ago.
    assert path((3.0, 1.0, 2.0, 2.9)) == [0, 0, 0, 0]
