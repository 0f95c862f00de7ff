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
from adakd_jax.data.pack import Plan, check_lengths, packing_plan, rows_of_steps
from adakd_jax.data.step_sizes import size_for, step_sizes
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
    stopped at and nothing is skipped or repeated. Every batch has one of the `shapes` [A, B, T]: A
    micro-batches of B rows, the smallest that holds its step. There is more than one with
    `batch_examples` only, whose steps differ in rows; see `step_sizes`. Row r of a step is row
    r // A of micro-batch r % A, which spreads a step that is not full over all of them; what is
    left over is padding. A process gets the rows that its devices hold: together all processes have
    the same global batch as one.
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
          training_config: says how long the run is and what a step holds.
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
        rows = self._rows_of_all()
        self._unit = training_config.micro_batch_rows or row_multiple
        self._in_micro_batches = training_config.micro_batch_rows is not None
        step_layout(int(rows.max()), training_config.micro_batch_rows, row_multiple)
        self._needed = -(-rows // self._unit)
        self._sizes = step_sizes(self._needed)
        self._rows_held = lru_cache(rows_held)

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Micro-batches, rows and tokens of global batches: A, B, T, the largest first."""
        layouts = (self._layout(size) for size in reversed(self._sizes))
        return tuple((*layout, self.row_length) for layout in layouts)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The largest of the shapes."""
        return self.shapes[0]

    @property
    def steps_of_shapes(self) -> list[int]:
        """For each of the shapes, a step that has it."""
        sizes = np.asarray(self._sizes)[np.searchsorted(self._sizes, self._needed)]
        return [int(np.argmax(sizes == size)) for size in reversed(self._sizes)]

    @property
    def fill(self) -> float:
        """Share of all positions of the first epoch that hold a token; the rest is padding."""
        needed = self._needed[: self.steps_per_epoch]
        sizes = np.asarray(self._sizes)[np.searchsorted(self._sizes, needed)]
        positions = sizes.mean() * self.steps_per_epoch * self._unit * self.row_length
        return float(self.examples.lengths.sum() / positions)

    def batch(self, step: int) -> TokenBatch:
        """The part of a step that this process holds: int32 NumPy arrays [A, rows held, T], and
        what a cached teacher says of them.

        Raises:
          IndexError: `step` is not in 0 … total_steps - 1.
        """
        rows = self._rows_of(step)
        size = size_for(self._sizes, -(-len(rows) // self._unit))
        assert size is not None  # they were chosen by the rows of all steps
        return self._assembled(self.examples, rows, self._layout(size), self._taught)

    def pack(self, examples: Sequence[Example]) -> TokenBatch:
        """The part that this process holds of a batch of other examples: [A', rows held, T].

        The shape is one of `shapes` or, if none holds them, has 2, 4, … times as many micro-batches
        as the largest, so that few shapes are ever compiled.
        """
        lengths = np.array([len(example.tokens) for example in examples], np.int64)
        rows = packed_rows(lengths, self.row_length)
        size = size_for(self._sizes, -(-len(rows) // self._unit))
        micro_batches, height = self._layout(size or self._sizes[-1])
        while micro_batches * height < len(rows):
            micro_batches *= 2
        return self._assembled(examples, rows, (micro_batches, height))

    def _layout(self, size: int) -> tuple[int, int]:
        """Micro-batches of a step, and rows of each."""
        return (size, self._unit) if self._in_micro_batches else (1, size * self._unit)

    def _assembled(
        self,
        examples: Examples | Sequence[Example],
        rows: list[np.ndarray],
        layout: tuple[int, int],
        taught: TaughtRows | None = None,
    ) -> TokenBatch:
        empty, micro_batches = np.zeros(0, np.int64), layout[0]
        held = self._rows_held(layout[1])
        rows = rows + [empty] * (math.prod(layout) - len(rows))
        mine = [
            rows[row * micro_batches + micro_batch]
            for micro_batch in range(micro_batches)
            for row in held
        ]
        batch = assemble_rows(examples, mine, self.row_length)
        if taught is not None:
            batch = batch._replace(taught=taught(mine, self.row_length))
        shape = (micro_batches, len(held))
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

    def _rows_of_all(self) -> np.ndarray:
        """Rows of each step of the run; with `batch_rows`, whose last steps of epochs alone may
        have fewer, the rows of one.
        """
        if self._batch_rows is not None:
            return np.full(self.total_steps, self._batch_rows, np.int64)
        assert self._batch_examples is not None
        rows = rows_of_steps(
            self.examples.lengths,
            row_length=self.row_length,
            seed=self._seed,
            epochs=math.ceil(self.total_steps / self.steps_per_epoch),
            batch_examples=self._batch_examples,
        )
        return rows[: self.total_steps]

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
