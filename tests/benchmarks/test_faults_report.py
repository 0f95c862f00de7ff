"""A fault that is not withstood is told: by the comparison of runs, the table and the exit code."""

import json
import random
import shutil
import tempfile

import pytest

from benchmarks.faults.compare import difference
from benchmarks.faults.kills import PHASES, draw
from benchmarks.faults.observation import SMALL_DISK, Observation, to_json
from benchmarks.faults.report import MARKS, hits, kept, table, write_into_readme
from benchmarks.faults.workplace import ROOT

KILL = {
    "phase": "save",
    "signal": "SIGTERM",
    "hit": True,
    "expected": True,
    "seconds_to_end": 2.25,
}
FAULT = {
    "fault": "disk full",
    "how": "tmpfs",
    "promise": "refused",
    "code": 2,
    "problem": None,
}


def results(kills=(KILL,), difference=None, **fault):
    return {
        "runs": [{"policy": "gkd", "kills": list(kills), "difference": difference}],
        "others": [FAULT | fault],
    }


@pytest.fixture
def runs(tmp_path):
    """Two runs that are one, but for their speed."""
    for name, seconds in (("one", 1.0), ("other", 2.0)):
        folder = tmp_path / name
        records = [{"step": step, "loss": 1 / step, "seconds": seconds} for step in (1, 2)]
        for file in ("export/model.safetensors", "evaluation/after.json"):
            (folder / file).parent.mkdir(parents=True)
            (folder / file).write_text("weights")
        (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return tmp_path / "one", tmp_path / "other"


def test_runs_differ_in_numbers_files_and_what_they_leave_behind_not_in_speed(runs):
    one, other = runs
    assert difference(one, other) is None
    (other / "checkpoints" / "step_2.orbax-tmp").mkdir(parents=True)
    assert difference(one, other) == "left behind: step_2.orbax-tmp"
    (other / "export/model.safetensors").write_text("weightt")
    assert difference(one, other) == "export/model.safetensors differ"
    lines = (other / "metrics.jsonl").read_text().splitlines()
    (other / "metrics.jsonl").write_text(lines[0] + "\n")
    assert difference(one, other) == "1 records, not 2"
    (other / "metrics.jsonl").write_text("\n".join(lines).replace("0.5", "0.50000001"))
    assert str(difference(one, other)).startswith("records of step 2 and 2 differ")
    shutil.rmtree(other / "export")
    assert difference(one, other) == "no export"


def test_the_table_counts_kills_that_met_a_run_and_names_broken_promises():
    late = KILL | {"hit": False, "seconds_to_end": 60.0}
    text = table(results((KILL, late)))
    assert "| SIGTERM | 0 | 0 | 0 | 1 | 0 | 1 |" in text and "gone within 2.2 s" in text
    assert "1 kills of 1 runs (1 gkd); 1 of 1 ended" in text
    assert "| disk full (tmpfs) | refused | 2 | yes |" in text
    assert len(hits(results((KILL, late)))) == 1
    assert "| no: a traceback |" in table(results(problem="a traceback"))


@pytest.mark.parametrize(
    "broken",
    [
        results(difference="records of step 1 differ"),
        results((KILL | {"expected": False},)),
        results(problem="a traceback"),
    ],
)
def test_one_broken_promise_is_enough(broken):
    assert kept(results()) and not kept(broken)


def test_only_what_stands_between_the_marks_is_replaced(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("no marks")
    assert not write_into_readme("table", readme) and readme.read_text() == "no marks"
    readme.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter")
    assert write_into_readme("new", readme)
    assert readme.read_text() == f"before\n{MARKS[0]}\nnew\n{MARKS[1]}\nafter"


def test_every_phase_is_drawn_where_it_can_be_met():
    rng = random.Random(0)
    early = [draw(rng, True, [], 40).phase for _ in range(200)]
    later = [draw(rng, True, [8, 10], 40) for _ in range(200)]
    assert set(early) == set(PHASES) - {"restore", "export"}
    assert {kill.phase for kill in later} == set(PHASES) - {"export"}
    assert all(10 < kill.steps <= 14 and kill.delay <= PHASES[kill.phase] for kill in later)
    assert draw(rng, False, [38], 40).phase == "export"


def test_results_name_no_folder_of_the_machine():
    with tempfile.TemporaryDirectory(prefix=SMALL_DISK) as small:
        message = f"{ROOT}/runs/faults/a and '{small}/run/b'"
        told = to_json("x", Observation("f", "", "p", 2, message, None))
    assert told["message"] == "runs/faults/a and 'DISK/run/b'"
    shipped = (ROOT / "benchmarks" / "results" / "faults.json").read_text()
    assert f"{tempfile.gettempdir()}/" not in shipped and str(ROOT) not in shipped
