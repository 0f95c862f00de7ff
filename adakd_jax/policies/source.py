"""Which responses a step learns from: a pure function of settings, seed, step and replay."""

import math
from typing import Literal

import numpy as np

from adakd_jax.config import DistiLlm, Gkd
from adakd_jax.policies.replay import Replay

Source = Literal["data", "student", "replay"]
_STREAM = 11  # keeps these random numbers apart from others of the same seed and step


def step_random(seed: int, step: int, purpose: int) -> np.random.Generator:
    """Random numbers of one step and purpose, the same after any restart."""
    return np.random.default_rng((seed, step, _STREAM, purpose))


def source_of(
    config: Gkd | DistiLlm, replay: Replay | None, *, seed: int, step: int, total_steps: int
) -> Source:
    """Says where the responses of a step come from.

    GKD: the student's with probability λ, else the data set's; λ is `student_fraction`, or on the
    cosine schedule ½(1 + cos(π·t/T)).

    DistiLLM: with u uniform in [0, 1), f the split and φ the replay's probability: u < φ·f, or
    u < φ while the buffer is not full → the student's, fresh; else u < φ → replayed; else the data
    set's.

    Args:
      config: the policy.
      replay: DistiLLM's buffer and φ; None for GKD.
      seed: of the run.
      step: t, from 0.
      total_steps: T.
    """
    uniform = step_random(seed, step, 0).random()
    progress = step / total_steps
    if isinstance(config, Gkd):
        cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
        fraction = config.student_fraction if config.schedule == "constant" else cosine
        return "student" if uniform < fraction else "data"
    assert replay is not None
    phi = float(replay.probability)
    split = {"constant": 0.5, "increasing": progress, "decreasing": 1.0 - progress}[config.split]
    if uniform < phi * split or (uniform < phi and int(replay.count) < config.capacity):
        return "student"
    return "replay" if uniform < phi else "data"
