"""What the train loop asks for the responses of each step."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from adakd_jax.axes import TokenBatch
from adakd_jax.config import DistiLlm, Gkd
from adakd_jax.data.loader import StepInfo, TrainingBatches
from adakd_jax.models.lora import combine
from adakd_jax.policies.replay import Replay, adapted, drawn, empty_replay, remember
from adakd_jax.policies.responses import respond
from adakd_jax.policies.source import source_of, step_random


class Responses(NamedTuple):
    """The batch of a step [A', rows held, T], the replay after it, and what is recorded of it."""

    batch: TokenBatch
    replay: Replay | None
    metrics: dict[str, float]


class DatasetResponses:
    """The responses that the data set has: `offline`, and `seqkd`, whose data the teacher wrote."""

    ask_student = False  # whether a step's responses wait for the weights of the step before

    def initial(self) -> Replay | None:
        """There is nothing to replay."""
        return None

    def of_step(
        self, params: Any, replay: Replay | None, step: int, batch: TokenBatch, info: StepInfo
    ) -> Responses:
        """The batch as it is."""
        return Responses(batch, None, {})

    def awaits_evaluation(self, replay: Replay | None) -> bool:
        """Whether an evaluation is needed before training: never."""
        return False

    def evaluated(self, replay: Replay | None, scores: dict[str, float]) -> Replay | None:
        """Evaluations change nothing."""
        return replay


class StudentResponses(DatasetResponses):
    """`gkd` and `distillm`: in some steps the student answers the step's own prompts, or earlier
    answers are replayed. Everything follows from seed, step, weights and replay.
    """

    ask_student = True

    def __init__(
        self,
        config: Gkd | DistiLlm,
        batches: TrainingBatches,
        student: nnx.GraphDef,
        *,
        eos_ids: Sequence[int],
        pad_id: int,
        seed: int,
        base: Any = None,
        vocabulary: int | None = None,
    ):
        """Takes what a run has; `student` is the structure of the model that answers, `base` its
        frozen weights if it has any, `vocabulary` how many tokens its readers know.
        """
        self._vocabulary = vocabulary
        self._base = base
        self._config, self._batches, self._student = config, batches, student
        self._eos_ids, self._pad_id, self._seed = eos_ids, pad_id, seed

    def initial(self) -> Replay | None:
        """The empty buffer of DistiLLM; GKD remembers nothing."""
        if isinstance(self._config, Gkd):
            return None
        return empty_replay(self._config.capacity, self._batches.row_length)

    def of_step(
        self, params: Any, replay: Replay | None, step: int, batch: TokenBatch, info: StepInfo
    ) -> Responses:
        """The batch of a step with the responses that the policy asks for.

        Args:
          params: the student's trained weights, with which it samples.
          replay: from the step before.
          step: from 0.
          batch: with the data set's responses.
          info: says which examples it holds.
        """
        began = time.perf_counter()
        source = source_of(
            self._config,
            replay,
            seed=self._seed,
            step=step,
            total_steps=self._batches.total_steps,
        )
        if source == "student":
            examples = [self._batches.examples[index] for index in info.examples.tolist()]
            written = respond(
                self._student,
                combine(self._base, params),
                examples,
                self._config.generation,
                eos_ids=self._eos_ids,
                pad_id=self._pad_id,
                seed=int(step_random(self._seed, step, 1).integers(2**31)),
                max_length=self._batches.row_length,
                vocabulary=self._vocabulary,
            )
            replay = None if replay is None else remember(replay, written)
            batch = self._batches.pack(written)
        elif source == "replay" and replay is not None:
            old = drawn(replay, len(info.examples), step_random(self._seed, step, 2))
            batch = self._batches.pack(old)
        return Responses(batch, replay, self._recorded(source, replay, time.perf_counter() - began))

    def awaits_evaluation(self, replay: Replay | None) -> bool:
        """DistiLLM counts rises from the held-out NLL before training."""
        return replay is not None and bool(np.isnan(replay.held_out_loss))

    def evaluated(self, replay: Replay | None, scores: dict[str, float]) -> Replay | None:
        """DistiLLM uses the student's responses more often when held-out NLL has risen."""
        if replay is None or isinstance(self._config, Gkd) or "nll" not in scores:
            return replay
        return adapted(replay, scores["nll"], self._config)

    def _recorded(self, source: str, replay: Replay | None, seconds: float) -> dict[str, float]:
        recorded = {
            "student_written": float(source == "student"),
            "replayed": float(source == "replay"),
            "generating_seconds": seconds if source == "student" else 0.0,
        }
        if replay is not None:
            recorded["replay_probability"] = float(replay.probability)
        return recorded
