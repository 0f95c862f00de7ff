import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adakd_jax.config.data import DataConfig, FileSource
from adakd_jax.config.training import TrainingConfig
from adakd_jax.data.assemble import assemble_rows
from adakd_jax.data.examples import EncodingReport, Examples
from adakd_jax.data.loader import TrainingBatches, evaluation_batches

ROW = 16
DATA = DataConfig(train=FileSource(path="rows.jsonl"), max_length=ROW, max_prompt_length=8)
_ = -100


def make_examples(pairs):
    """Examples from pairs of tokens and targets."""
    tokens = np.concatenate([np.array(tokens, np.int32) for tokens, _ in pairs])
    targets = np.concatenate([np.array(targets, bool) for _, targets in pairs])
    lengths = np.array([len(tokens) for tokens, _ in pairs])
    return Examples(tokens, targets, lengths, np.arange(len(pairs)) + 1000, EncodingReport())


def examples_of(lengths):
    """Example i is its number + 1, over and over; its last two tokens are targets."""
    pairs = [([i + 1] * n, [t >= n - 2 for t in range(n)]) for i, n in enumerate(lengths)]
    return make_examples(pairs)


def batches(examples, seed=0, process=(0, 1), row_multiple=None, **training):
    return TrainingBatches(
        examples,
        DATA,
        TrainingConfig(**({"epochs": 2.0} | training)),
        seed,
        row_multiple=row_multiple or process[1],
        rows_held=lambda rows: part(rows, *process),
    )


def part(rows, index, count):
    """What process `index` of `count` holds where each has as many consecutive rows."""
    return range(index * rows // count, (index + 1) * rows // count)


def documents(batch):
    """Example numbers of all documents of a batch, sorted; checks that each document is whole."""
    flat = [np.asarray(array).reshape(-1, ROW) for array in batch[:4]]
    found = []
    for tokens, _labels, positions, segments in zip(*flat, strict=True):
        for segment in range(1, segments.max() + 1):
            inside = tokens[segments == segment]
            assert len(set(inside)) == 1
            np.testing.assert_array_equal(positions[segments == segment], np.arange(len(inside)))
            found.append(int(inside[0]) - 1)
    return sorted(found)


def test_labels_of_packed_documents():
    examples = make_examples(
        [
            ([11, 12, 13, 14], [0, 0, 1, 1]),  # prompt of two
            ([21, 22, 23], [1, 1, 1]),  # plain text: its first token has no label
            ([31, 32, 33, 34, 35], [0, 1, 0, 0, 1]),  # two turns
        ]
    )
    batch = assemble_rows(examples, [np.array([0, 1, 2]), np.array([], np.int64)], ROW)
    assert batch.tokens[0].tolist() == [11, 12, 13, 14, 21, 22, 23, 31, 32, 33, 34, 35, 0, 0, 0, 0]
    assert batch.labels[0].tolist() == [_, 13, 14, _, 22, 23, _, 32, _, _, 35, _, _, _, _, _]
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3, 4, 0, 0, 0, 0]
    assert batch.segments[0].tolist() == [1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 0, 0, 0, 0]
    assert batch.labels[1].tolist() == [_] * ROW
    assert not batch.segments[1].any() and not batch.tokens[1].any()
    assert all(array.dtype == np.int32 for array in batch[:4])


lengths_of_examples = st.lists(st.integers(3, ROW), min_size=1, max_size=40)
sizes_of_steps = st.one_of(
    st.fixed_dictionaries({"batch_rows": st.sampled_from([4, 8])}),
    st.fixed_dictionaries({"batch_examples": st.integers(1, 15)}),
)


@settings(max_examples=40, deadline=None)
@given(lengths_of_examples, sizes_of_steps, st.sampled_from([None, 2, 4]), st.integers(0, 3))
def test_each_epoch_is_every_example_once(lengths, size, micro_batch_rows, seed):
    examples = examples_of(lengths)
    run = batches(examples, seed, micro_batch_rows=micro_batch_rows, **size)
    assert run.total_steps == 2 * run.steps_per_epoch
    for epoch in range(2):
        steps = range(epoch * run.steps_per_epoch, (epoch + 1) * run.steps_per_epoch)
        seen = []
        for step in steps:
            batch, info = run.batch(step), run.info(step)
            assert batch.tokens.shape == run.shape
            assert info.epoch == epoch
            assert documents(batch) == sorted(info.examples)
            np.testing.assert_array_equal(info.rows, info.examples + 1000)
            labels = np.count_nonzero(batch.labels != _)
            assert labels == 2 * len(info.examples)
            seen += documents(batch)
        assert sorted(seen) == list(range(len(lengths)))


@settings(max_examples=30, deadline=None)
@given(lengths_of_examples, sizes_of_steps, st.integers(0, 3))
def test_any_process_count_has_the_same_global_batch(lengths, size, seed):
    examples = examples_of(lengths)
    options = {"micro_batch_rows": 4} | size
    alone = batches(examples, seed, **options)
    for count in (2, 4):
        parts = [batches(examples, seed, (index, count), **options) for index in range(count)]
        for step in range(alone.total_steps):
            pieces = [part.batch(step) for part in parts]
            whole_batch = alone.batch(step)
            for name in ("tokens", "labels", "positions", "segments"):
                whole = getattr(whole_batch, name)
                joined = np.concatenate([getattr(piece, name) for piece in pieces], axis=1)
                np.testing.assert_array_equal(joined, whole)


def test_without_micro_batches_rows_are_rounded_up_for_the_devices():
    examples = examples_of([ROW] * 10)
    assert batches(examples, batch_rows=5).shape == (1, 5, ROW)
    run = batches(examples, batch_rows=5, process=(1, 2), row_multiple=4)
    assert run.shape == (1, 8, ROW)
    assert run.batch(0).tokens.shape == (1, 4, ROW)
    assert (
        documents(run.batch(0)) == sorted(run.info(0).examples)[-1:]
        or len(documents(run.batch(0))) == 1
    )


@pytest.mark.parametrize(
    ("options", "unit"), [({}, 1), ({"micro_batch_rows": 2}, 2), ({"row_multiple": 4}, 4)]
)
def test_steps_of_a_long_run_are_of_few_sizes_with_exactly_their_examples(options, unit):
    lengths = np.random.default_rng(0).integers(3, ROW + 1, 60)
    run = batches(examples_of(lengths), epochs=100.0, batch_examples=12, **options)
    small = batches(examples_of(lengths), epochs=2.0, batch_examples=12, **options)
    assert len(small.shapes) == 1 < len(run.shapes) <= 3  # what is short is compiled once
    sizes = sorted(count * rows for count, rows, _ in run.shapes)
    assert run.shape == run.shapes[0] and run.shapes[0][0] * run.shapes[0][1] == sizes[-1]
    seen = set()
    for step in range(run.steps_per_epoch):
        batch, info = run.batch(step), run.info(step)
        assert documents(batch) == sorted(info.examples) and len(info.examples) == 12
        rows = batch.tokens.shape[0] * batch.tokens.shape[1]
        filled = (batch.segments.max(axis=2) > 0).sum()
        assert rows == min(size for size in sizes if size >= filled) and rows % unit == 0
        seen.add(batch.tokens.shape)
    found = [run.batch(step).tokens.shape for step in run.steps_of_shapes]
    assert tuple(found) == run.shapes and seen <= set(found)
    tokens = run.examples.lengths.sum() / ROW
    held = sum(np.prod(run.batch(step).tokens.shape[:2]) for step in range(run.steps_per_epoch))
    assert run.fill == pytest.approx(tokens / held)


def test_all_processes_take_the_same_shape_in_every_step():
    examples = examples_of(np.random.default_rng(0).integers(3, ROW + 1, 60))
    options = {"epochs": 100.0, "batch_examples": 12, "row_multiple": 2}
    alone = batches(examples, **options)
    parts = [batches(examples, process=(index, 2), **options) for index in range(2)]
    assert len(alone.shapes) > 1
    for step in range(0, alone.total_steps, 7):
        joined = np.concatenate([part.batch(step).tokens for part in parts], axis=1)
        np.testing.assert_array_equal(joined, alone.batch(step).tokens)


def test_responses_of_another_model_take_the_smallest_shape_that_holds_them():
    lengths = np.random.default_rng(0).integers(3, ROW + 1, 60)
    run = batches(examples_of(lengths), epochs=100.0, batch_examples=12)
    examples = [run.examples[index] for index in range(60)]
    assert run.pack(examples[:1]).tokens.shape == run.shapes[-1]
    most = run.shape[1]
    rows = run.pack(examples).tokens.shape
    assert rows[0] in (2, 4, 8) and rows[1] == most


def test_a_step_that_is_not_full_is_spread_over_its_micro_batches():
    run = batches(examples_of([ROW] * 11), batch_rows=8, micro_batch_rows=2)
    assert run.shape == (4, 2, ROW)
    last = run.batch(1)
    assert (last.segments.max(axis=2) > 0).sum(axis=1).tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("size", [{"batch_rows": 3}, {"batch_examples": 5}])
def test_iteration_resumes_from_any_step(size):
    examples = examples_of(np.random.default_rng(0).integers(3, ROW, 23))
    run = batches(examples, **size)
    whole = list(run.iterate())
    assert [step for step, _, _ in whole] == list(range(run.total_steps))
    for start in (1, run.steps_per_epoch, run.total_steps - 1):
        again = batches(examples, **size)
        for (step, batch, info), (step2, batch2, info2) in zip(
            whole[start:], again.iterate(start), strict=True
        ):
            assert step == step2
            assert info.examples.tolist() == info2.examples.tolist()
            for array, array2, direct in zip(batch, batch2, run.batch(step), strict=True):
                np.testing.assert_array_equal(array, array2)
                np.testing.assert_array_equal(array, direct)
    assert list(run.iterate(run.total_steps)) == []


def test_iteration_can_be_left_early():
    run = batches(examples_of([5] * 50), batch_rows=1)
    steps = run.iterate()
    assert next(steps)[0] == 0
    steps.close()


def test_length_of_a_run():
    examples = examples_of([ROW] * 10)
    assert batches(examples, batch_rows=3).steps_per_epoch == 4
    assert batches(examples, batch_rows=3, epochs=0.5).total_steps == 2
    assert batches(examples, batch_rows=3, epochs=0.01).total_steps == 1
    assert batches(examples_of([ROW] * 30), batch_rows=1, epochs=0.1).total_steps == 3
    assert batches(examples, batch_examples=5, epochs=None, steps=7).total_steps == 7
    run = batches(examples, batch_rows=3)
    for step in (-1, run.total_steps):
        with pytest.raises(IndexError, match="not in 0 … 7"):
            run.batch(step)


def test_seeds_and_epochs_give_different_orders():
    examples = examples_of([5] * 50)
    runs = [batches(examples, seed, batch_rows=50) for seed in range(2)]
    assert runs[0].steps_per_epoch == 1
    orders = {tuple(run.info(epoch).examples) for run in runs for epoch in range(2)}
    assert len(orders) == 4


def test_fill_is_the_share_of_positions_that_hold_tokens():
    assert batches(examples_of([8] * 4), batch_rows=2).fill == 1.0
    assert batches(examples_of([12] * 3), batch_rows=2).fill == 36 / 64


def test_micro_batches_that_devices_cannot_share_are_refused():
    examples = examples_of([5])
    with pytest.raises(ValueError, match=r"micro_batch_rows: 2 is not a multiple of the 4 devices"):
        batches(examples, batch_rows=8, micro_batch_rows=2, row_multiple=4)


def test_an_example_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="example 1 has 17"):
        batches(examples_of([3, 17]), batch_rows=2)
    with pytest.raises(ValueError, match="example 1 has 17"):
        evaluation_batches(examples_of([3, 17]), ROW, 2)


@settings(max_examples=30, deadline=None)
@given(lengths_of_examples, st.integers(1, 5))
def test_evaluation_sees_every_example_once_in_static_shapes(lengths, batch_rows):
    found = evaluation_batches(examples_of(lengths), ROW, batch_rows)
    assert {batch.tokens.shape for batch in found} == {(batch_rows, ROW)}
    seen = [number for batch in found for number in documents(batch)]
    assert sorted(seen) == list(range(len(lengths)))
    again = evaluation_batches(examples_of(lengths), ROW, batch_rows)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
    assert len(found) == len(list(found))
