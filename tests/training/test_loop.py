"""What the loop waits for: a step's metrics are read while the next step runs, nothing sooner."""

import jax
import numpy as np

from adakd_jax.config import DistillConfig, OptimizerConfig
from adakd_jax.console import Console
from adakd_jax.data.loader import StepInfo, TrainingBatches
from adakd_jax.training.checkpoint import Checkpoints
from adakd_jax.training.loop import Schedule, fit
from adakd_jax.training.records import NoLog
from adakd_jax.training.step import make_train_step
from tests.training.conftest import random_batch

KEYS = (
    *("loss", "tokens", "response_tokens", "accepted", "bad_streak", "grad_norm"),
    *("skipped_steps", "bad_steps"),
)


class Unread:
    """A number on a device: notes when it is read."""

    def __init__(self, read):
        self._read = read

    def __array__(self, *arguments, **options):
        self._read()
        return np.float32(1)


class Batches(TrainingBatches):
    def __init__(self):
        pass

    def iterate(self, start_step=0):
        for step in range(start_step, 4):
            yield step, random_batch(step), StepInfo(0, np.zeros(1, int), np.zeros(1, int))


class Unsaved(Checkpoints):
    def __init__(self):
        pass

    def save(self, state, *, held_out_loss=None):
        pass

    def wait(self):
        pass


def test_metrics_are_read_and_batches_placed_while_a_step_runs(pair):
    events = []

    def step(state, teacher_params, batch, base):
        number = len([event for event in events if event.startswith("run")]) + 1
        events.append(f"run {number}")
        read = Unread(lambda: events.append(f"read {number}"))
        # One is enough to wait for the step.
        return state, dict.fromkeys(KEYS, np.float32(0)) | {"tokens": 1.0, "loss": read}

    def place(batch):
        events.append("place")
        return batch

    optimizer = OptimizerConfig(schedule="constant", warmup_steps=0)
    fit(
        step,
        pair.state(pair.parts(DistillConfig(), optimizer)),
        None,
        Batches(),
        schedule=Schedule(4, 100, 100, None, 3),
        checkpoints=Unsaved(),
        log=NoLog(),
        console=Console(quiet=True),
        place=place,
    )
    # Batch k + 1 is on its way to the device while step k runs.
    assert events == [
        *("place", "run 1", "place", "run 2", "read 1"),
        *("place", "run 3", "read 2", "place", "run 4", "read 3", "read 4"),
    ]


def test_the_state_is_updated_in_place(pair):
    parts = pair.parts(DistillConfig(), OptimizerConfig(schedule="constant", warmup_steps=0))
    state = pair.state(parts)
    lowered = make_train_step(parts).lower(state, pair.teaching(parts), random_batch(0))
    memory = lowered.compile().memory_analysis()
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state) if leaf.dtype == np.float32)
    assert held <= memory.alias_size_in_bytes <= 1.05 * held
