"""Token batches by step: a pure function of data, seed and step, read ahead by Grain."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import grain
import jax
import numpy as np
from jaxtyping import Int64

from adakd_jax.axes import CachedTeacher, TokenBatch
from adakd_jax.config.data import DataConfig
from adakd_jax.config.training import TrainingConfig
from adakd_jax.data.assemble import assemble_rows
from adakd_jax.data.examples import Examples
from adakd_jax.data.fill import packed_rows
from adakd_jax.data.pack import Plan, check_lengths, most_rows_of_a_step, packing_plan
from adakd_jax.data.tokenize import Example

_READ_AHEAD = 4
_THREADS = 2


class StepInfo(NamedTuple):
    """What a step is made of; `rows` are rows of the source, whose `origin` says file and line."""

    epoch: int
    examples: Int64[np.ndarray, " examples"]
    rows: Int64[np.ndarray, " examples"]


# What a cached teacher says of packed rows of example numbers, of T tokens: NumPy [rows, T, …].
TaughtRows = Callable[[Sequence[np.ndarray], int], CachedTeacher]


class TrainingBatches:
    """The batches of a run.

    Step s is a function of (examples, settings, seed, s) alone, so a restart asks for the step it
    stopped at and nothing is skipped or repeated. Every batch has the shape [A, B, T]: A
    micro-batches of B rows. Row r of a step is row r // A of micro-batch r % A, which spreads a
    step that is not full over all of them; what is left over is padding. A process gets the rows
    that its devices hold: together all processes have the same global batch as one.
    """

    def __init__(
        self,
        examples: Examples,
        data_config: DataConfig,
        training_config: TrainingConfig,
        seed: int,
        *,
        row_multiple: int = 1,
        rows_held: Callable[[int], Sequence[int]] = range,
        taught: TaughtRows | None = None,
    ):
        """Lays out the run.

        Args:
          examples: the tokenized training rows.
          data_config: says how long a row is.
          training_config: says how long the run is and what a step holds. With `batch_examples`,
            the rows of a step are those of the fullest step of all epochs of the run.
          seed: of the run; non-negative.
          row_multiple: B is a multiple of it: the number of devices that share the rows.
          rows_held: says, given B, which rows of a micro-batch this process holds, increasing;
            default all.
          taught: a cached teacher of the examples, which then is part of the batches.

        Raises:
          ValueError: B cannot be a multiple of `row_multiple`, or an example is longer than a row.
        """
        check_lengths(examples.lengths, data_config.max_length)
        self.examples = examples
        self.row_length = data_config.max_length
        self._seed = seed
        self._taught = taught
        self._batch_rows = training_config.batch_rows
        self._batch_examples = training_config.batch_examples
        self._plan = lru_cache(maxsize=2)(self._make_plan)
        self.steps_per_epoch = self._plan(0).steps
        self.total_steps = _total_steps(training_config, self.steps_per_epoch)
        rows = self._batch_rows or self._most_rows()
        self.micro_batches, self._global_rows = step_layout(
            rows, training_config.micro_batch_rows, row_multiple
        )
        self._held = rows_held(self._global_rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Micro-batches, rows and tokens of the global batch: A, B, T."""
        return self.micro_batches, self._global_rows, self.row_length

    @property
    def fill(self) -> float:
        """Share of all positions of the first epoch that hold a token; the rest is padding."""
        return float(self.examples.lengths.sum() / (self.steps_per_epoch * math.prod(self.shape)))

    def batch(self, step: int) -> TokenBatch:
        """The part of a step that this process holds: int32 NumPy arrays [A, rows held, T], and
        what a cached teacher says of them.

        Raises:
          IndexError: `step` is not in 0 … total_steps - 1.
        """
        rows, count = self._rows_of(step), self.micro_batches
        return self._assembled(self.examples, rows, count, self._taught)

    def pack(self, examples: Sequence[Example]) -> TokenBatch:
        """The part that this process holds of a batch of other examples: [A', rows held, T].

        A' is A, 2·A, 4·A, …, whatever holds them, so that few shapes are ever compiled.
        """
        lengths = np.array([len(example.tokens) for example in examples], np.int64)
        rows, micro_batches = packed_rows(lengths, self.row_length), self.micro_batches
        while micro_batches * self._global_rows < len(rows):
            micro_batches *= 2
        return self._assembled(examples, rows, micro_batches)

    def _assembled(
        self,
        examples: Examples | Sequence[Example],
        rows: list[np.ndarray],
        micro_batches: int,
        taught: TaughtRows | None = None,
    ) -> TokenBatch:
        empty = np.zeros(0, np.int64)
        rows = rows + [empty] * (micro_batches * self._global_rows - len(rows))
        mine = [
            rows[row * micro_batches + micro_batch]
            for micro_batch in range(micro_batches)
            for row in self._held
        ]
        batch = assemble_rows(examples, mine, self.row_length)
        if taught is not None:
            batch = batch._replace(taught=taught(mine, self.row_length))
        shape = (micro_batches, len(self._held))
        return jax.tree.map(lambda array: array.reshape(*shape, *array.shape[1:]), batch)

    def info(self, step: int) -> StepInfo:
        """What the whole step is made of, on all processes."""
        examples = np.concatenate(self._rows_of(step))
        return StepInfo(step // self.steps_per_epoch, examples, self.examples.rows[examples])

    def iterate(self, start_step: int = 0) -> Iterator[tuple[int, TokenBatch, StepInfo]]:
        """Yields step, batch and info from `start_step` to the end, reading ahead in threads.

        The state of the iteration is the step: to go on elsewhere, start at the next one.
        """
        steps = grain.MapDataset.range(start_step, self.total_steps)
        batches = steps.map(lambda step: (int(step), self.batch(int(step)), self.info(int(step))))
        options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_READ_AHEAD)
        yield from batches.to_iter_dataset(options)

    def _make_plan(self, epoch: int) -> Plan:
        return packing_plan(
            self.examples.lengths,
            row_length=self.row_length,
            seed=self._seed,
            epoch=epoch,
            batch_rows=self._batch_rows,
            batch_examples=self._batch_examples,
        )

    def _most_rows(self) -> int:
        assert self._batch_examples is not None
        return most_rows_of_a_step(
            self.examples.lengths,
            row_length=self.row_length,
            seed=self._seed,
            epochs=math.ceil(self.total_steps / self.steps_per_epoch),
            batch_examples=self._batch_examples,
        )

    def _rows_of(self, step: int) -> list[np.ndarray]:
        if not 0 <= step < self.total_steps:
            raise IndexError(f"step {step} is not in 0 … {self.total_steps - 1}")
        epoch, within = divmod(step, self.steps_per_epoch)
        return self._plan(epoch).step(within)


def _total_steps(config: TrainingConfig, steps_per_epoch: int) -> int:
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None
    # Less a little, or 0.1 epochs of 30 steps would be 4: the product is 3.0000000000000004.
    return max(1, math.ceil(config.epochs * steps_per_epoch - 1e-6))


def step_layout(rows: int, micro_batch_rows: int | None, multiple: int) -> tuple[int, int]:
    """Micro-batches of a step, and rows of each, a multiple of `multiple`.

    Raises:
      ValueError: `micro_batch_rows` is no such multiple.
    """
    if micro_batch_rows is None:
        return 1, math.ceil(rows / multiple) * multiple
    if micro_batch_rows % multiple:
        raise ValueError(
            f"training.micro_batch_rows: {micro_batch_rows} is not a multiple of the {multiple} "
            f"devices that share it; valid: {multiple}, {2 * multiple}, …"
        )
    return math.ceil(rows / micro_batch_rows), micro_batch_rows


class EvaluationBatches(Sequence[TokenBatch]):
    """Held-out examples as batches [B, T] in a fixed order, each example once."""

    def __init__(self, examples: Examples, row_length: int, batch_rows: int):
        """Packs the examples; see `evaluation_batches`."""
        check_lengths(examples.lengths, row_length)
        self._rows = packed_rows(examples.lengths, row_length)
        self._examples = examples
        self._row_length = row_length
        self._batch_rows = batch_rows

    def __len__(self) -> int:
        """Number of batches."""
        return math.ceil(len(self._rows) / self._batch_rows)

    def __getitem__(self, index: int) -> TokenBatch:
        """Assembles one batch."""
        start = range(len(self))[index] * self._batch_rows
        rows = self._rows[start : start + self._batch_rows]
        rows = rows + [np.zeros(0, np.int64)] * (self._batch_rows - len(rows))
        return assemble_rows(self._examples, rows, self._row_length)


def evaluation_batches(examples: Examples, row_length: int, batch_rows: int) -> EvaluationBatches:
    """Batches for measuring likelihoods: a fixed order, one static shape, each example once.

    Args:
      examples: the tokenized held-out rows.
      row_length: T.
      batch_rows: B; the last batch is filled up with empty rows.

    Returns:
      A sequence of batches, int32 NumPy arrays [B, T].
    """
    return EvaluationBatches(examples, row_length, batch_rows)
