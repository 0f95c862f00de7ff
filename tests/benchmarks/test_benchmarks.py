"""The counted operations, and the way from measurements to a table; nothing is timed here."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import report
from benchmarks.cases import IGNORE, Batch, full_rows, load_batches, save_batches
from benchmarks.flops import (
    Method,
    Shape,
    head_operations,
    large_loss_ratio,
    overhead,
    step_operations,
)
from benchmarks.results import Results
from benchmarks.suite import CONTENDERS, PRODUCT, Case, full_case

ROOT = Path(__file__).parents[2]


def test_ranking_costs_a_7b_teacher_what_it_may():
    ranked, few, kept = (
        large_loss_ratio(Method(True, ratio, keeps))
        for ratio, keeps in ((1.0, False), (0.375, False), (1.0, True))
    )
    assert 0.06 < overhead(ranked, 1.0) < 0.07 and 0.03 < overhead(ranked, 82 / 156) < 0.04
    assert few == pytest.approx(1.0) and kept == pytest.approx(1.0)


def test_head_operations_are_those_that_xla_counts():
    student, teacher, vocabulary, tokens = 8, 16, 32, 4

    def loss(hidden, weight, other, other_weight):
        logits = hidden @ weight.T, jax.lax.stop_gradient(other @ other_weight.T)
        return (logits[0] * logits[1]).sum()

    shapes = ((tokens, student), (vocabulary, student), (tokens, teacher), (vocabulary, teacher))
    arrays = [jnp.ones(shape) for shape in shapes]
    hlo = jax.jit(jax.grad(loss, (0, 1))).lower(*arrays)
    counted = tokens * head_operations(Method(), student, teacher, vocabulary)
    # The gradient alone does not need the student's own logits here: 2·Ds·V of 6·Ds·V.
    elementwise = 4 * tokens * vocabulary
    found = hlo.cost_analysis()["flops"] + 2 * tokens * student * vocabulary
    assert counted <= found <= counted + elementwise


def test_only_tokens_that_exist_are_counted():
    shapes = Shape(100, 8, 16), Shape(200, 8, 24)
    one = Batch(*(np.array(row, np.int32)[None] for row in (
        [5, 6, 7, 9, 9, 0], [6, IGNORE, IGNORE, 9, IGNORE, IGNORE],
        [0, 1, 2, 0, 1, 0], [1, 1, 1, 2, 2, 0],
    )))  # fmt: skip
    bodies = 5 * (2 * 200 + 6 * 100)
    attention = (6 + 3) * (4 * 24 + 12 * 16)
    heads = 2 * head_operations(Method(), 8, 8, 10)
    assert step_operations(one, Method(), *shapes, 10) == bodies + attention + heads


def test_batches_survive_a_file(tmp_path):
    batches = [full_rows(2, 5), full_rows(1, 3, seed=4)]
    save_batches(tmp_path / "b.npz", batches)
    for one, other in zip(batches, load_batches(tmp_path / "b.npz"), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_measurements_become_a_table_and_are_not_repeated(tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.MARKS[0]}\nold\n{report.MARKS[1]}\nafter\n")
    monkeypatch.setattr(report, "README", readme)
    case, results = full_case(2, 8), Results(tmp_path / "steps.jsonl")
    for contender, seconds in ((PRODUCT, 1.0), (CONTENDERS[0], 4.0), (CONTENDERS[1], 3.0)):
        measured = {"seconds": [(0, seconds), (0, 9.0), (0, seconds)], "peak_gib": 2.0}
        results.add(case, contender, 0, measured, case.batches(contender))
    again = Results(tmp_path / "steps.jsonl")
    assert again.has(case.name, CONTENDERS[1].name, 0)
    assert not again.has(case.name, CONTENDERS[1].name, 1)
    report.write_report(again, tmp_path)
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert f"| {CONTENDERS[1].title} | 3.00 | 0.75× | 2.0 |" in text


def test_a_packer_gets_packed_batches():
    case = Case("c", "c", [full_rows(1, 2)], [full_rows(1, 3)])
    sizes = {c.packs: case.batches(c)[0].tokens.size for c in CONTENDERS}
    assert sizes == {True: 2, False: 3}


@pytest.mark.parametrize("how", ["dense", "chunked"])
def test_the_loss_alone_runs_in_a_worker(how, tmp_path):
    save_batches(tmp_path / "b.npz", [full_rows(1, 1)])
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks.worker", "loss_stage", f"{how} 64 512",
            str(tmp_path / "b.npz"), "--steps", "2",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    assert len(measured["seconds"]) == 2 and 0 < measured["peak_gib"] < 4
    assert measured["losses"][0] == pytest.approx(measured["losses"][1])
