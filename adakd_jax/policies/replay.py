"""DistiLLM's replay buffer and how often it is used: host arrays that go into checkpoints."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from adakd_jax.config import DistiLlm
from adakd_jax.data.tokenize import Example

# What float32, in which the reference is kept, may take from a rise of exactly `loss_eps`.
_ROUNDING = 1e-6


class Replay(NamedTuple):
    """The last responses that the student wrote, with their prompts.

    Attributes:
      tokens: int32 [capacity, T], prompt and response of each.
      starts: int32 [capacity], where the response begins.
      ends: int32 [capacity], where it ends.
      count: int32 [], responses held.
      next: int32 [], the place that is written next, the oldest once the buffer is full.
      probability: float32 [], φ in [0, 1]: how often the student's responses are used.
      held_out_loss: float32 [], what a rise is counted from: before training, then at the last
        rise; NaN where it has not been measured.
    """

    tokens: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    count: np.ndarray
    next: np.ndarray
    probability: np.ndarray
    held_out_loss: np.ndarray


def empty_replay(capacity: int, length: int) -> Replay:
    """A buffer of `capacity` examples of up to `length` tokens, with φ = 0."""
    return Replay(
        np.zeros((capacity, length), np.int32),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.int32),
        np.zeros((), np.int32),
        np.zeros((), np.int32),
        np.zeros((), np.float32),
        np.full((), np.nan, np.float32),
    )


def remember(replay: Replay, examples: Sequence[Example]) -> Replay:
    """Returns the buffer with these examples in it, the oldest forgotten."""
    tokens, starts, ends = (array.copy() for array in replay[:3])
    capacity = len(tokens)
    place = int(replay.next)
    for example in examples:
        tokens[place] = 0
        tokens[place, : len(example.tokens)] = example.tokens
        starts[place] = int(np.argmax(example.targets))
        ends[place] = len(example.tokens)
        place = (place + 1) % capacity
    count = min(capacity, int(replay.count) + len(examples))
    return replay._replace(
        tokens=tokens,
        starts=starts,
        ends=ends,
        count=np.asarray(count, np.int32),
        next=np.asarray(place, np.int32),
    )


def drawn(replay: Replay, number: int, random: np.random.Generator) -> list[Example]:
    """Draws examples from the buffer: without repetition, as far as it holds that many."""
    held = int(replay.count)
    places = random.permutation(held)[:number]
    examples = []
    for place in places.tolist():
        length = int(replay.ends[place])
        targets = np.arange(length) >= int(replay.starts[place])
        examples.append(Example(replay.tokens[place, :length], targets))
    return examples


def adapted(replay: Replay, held_out_loss: float, config: DistiLlm) -> Replay:
    """Returns the buffer after an evaluation: φ rises, to 1 at most, where the loss has risen.

    A loss is compared with the one before training, and with that of the last rise once there was
    one, as in the released code. So a loss that creeps up raises φ, however often it is measured;
    and what it falls below that is not asked back.

    Args:
      replay: as it was before.
      held_out_loss: held-out NLL in nats per token; the first one is that before training.
      config: how much is a rise, and what it adds.
    """
    reference = float(replay.held_out_loss)
    if np.isnan(reference):
        return replay._replace(held_out_loss=np.asarray(held_out_loss, np.float32))
    if held_out_loss - reference < config.loss_eps - _ROUNDING:
        return replay
    probability = min(1.0, float(replay.probability) + config.rise)
    return replay._replace(
        probability=np.asarray(probability, np.float32),
        held_out_loss=np.asarray(held_out_loss, np.float32),
    )
