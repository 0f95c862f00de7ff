"""A whole study on a tiny model: stopped, continued, reported, and refused with other settings."""

import csv
import dataclasses
import json
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from adakd_jax.config.provenance import OtherRunError, write_provenance
from adakd_jax.config.schedules import ScheduleError
from adakd_jax.studies.plan import plan
from adakd_jax.studies.results import check_data, read_result
from adakd_jax.training import run as training_run
from adakd_jax.training.inputs import FILE, OtherInputsError
from adakd_jax.training.records import MetricsLog, read_records
from tests.studies.tiny_study import METHODS, STEPS, make_study, start


class Told(NamedTuple):
    """How much of a study was done in two starts, and what was there after each."""

    compiled: list[int]
    trained: list[int]
    report: str
    first_result: int
    whole: dict[str, bytes]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("studies") / "stopped"


@pytest.fixture(scope="module")
def told(base, output):
    """A study of two methods and two seeds that got a SIGTERM early in its third run."""
    study = make_study(base, output)
    write, compiled_steps = MetricsLog.write, training_run.CompiledSteps
    compiled, trained = [0], [0]

    def count_and_stop(self, step, values, kind="train"):
        write(self, step, values, kind)
        trained[-1] += 1
        if len(trained) == 1 and trained[0] == 2 * STEPS + 1:
            signal.raise_signal(signal.SIGTERM)

    def count(*arguments):
        compiled[-1] += 1
        return compiled_steps(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsLog, "write", count_and_stop)
        patch.setattr(training_run, "CompiledSteps", count)
        with pytest.raises(SystemExit) as stopped:
            start(study)
        assert stopped.value.code == 0
        report = (output / "report.md").read_text()
        written = (output / "runs/plain/seed0/result.json").stat().st_mtime_ns
        compiled.append(0)
        trained.append(0)
        start(study)
    whole = {file.name: file.read_bytes() for file in output.iterdir() if file.is_file()}
    return Told(compiled, trained, report, written, whole)


def test_a_stopped_study_does_nothing_twice(told, output):
    assert sum(told.trained) == 4 * STEPS
    assert 2 * STEPS < told.trained[0] < 3 * STEPS
    result = output / "runs/plain/seed0/result.json"
    assert result.stat().st_mtime_ns == told.first_result
    steps = [record["step"] for record in read_records(str(output / "runs/plain/seed1"))]
    assert steps == list(range(1, STEPS + 1))
    assert not list(output.glob("runs/*/*/checkpoints"))


def test_seeds_share_the_compiled_step(told):
    # In the first start three runs are of two methods; in the second, two runs of two.
    assert told.compiled == [2, 2]


def test_a_stopped_study_has_compared_what_is_there(told):
    assert "Without a result: plain seed 1, AdaKD seed 1" in told.report
    rows = [line for line in told.report.splitlines() if line.startswith("| plain | 1 |")]
    assert len(rows) == 1 and "±" not in rows[0]
    assert "| AdaKD | 1 |" in told.report and "| AdaKD | plain |" in told.report
    assert "**better**" not in told.report and "**worse**" not in told.report


def test_the_report(told):
    text = told.whole["report.md"].decode()
    assert "python -m adakd_jax.study --config y.yaml" in text
    assert "| plain | 2 |" in text and "untrained student" in text
    assert "unresolved" in text and "**" in text
    assert "## What resolves, compared with plain" in text and "- **reverse KL**, lower is" in text
    titles = ("NLL", "forward KL", "reverse KL", "top-1 agreement %", "calibration error %")
    for title in (*titles, "ROUGE-L × 100"):
        assert title in text
    rows = list(csv.DictReader(told.whole["results.csv"].decode().splitlines()))
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("plain", "0"),
        ("AdaKD", "0"),
        ("plain", "1"),
        ("AdaKD", "1"),
    ]
    assert rows[0]["nll"] != rows[1]["nll"] != rows[3]["nll"]
    lines = told.whole["methods.csv"].decode().splitlines()
    methods = {row["method"]: row for row in csv.DictReader(lines)}
    mean = sum(float(row["nll"]) for row in rows if row["method"] == "AdaKD") / 2
    assert float(methods["AdaKD"]["nll"]) == pytest.approx(mean)
    assert methods["AdaKD"]["compared_with"] == "plain"
    for name in ("metrics.png", "curves.png"):
        assert 1000 < len(told.whole[name]) < 150_000


def test_documents_and_means_agree(told, base, output):
    for run in plan(make_study(base, output))[0]:
        result = read_result(run.config.run_dir, run.config)
        tokens = sum(result.documents["tokens"])
        assert len(result.documents["tokens"]) == 6 and tokens == result.metrics["tokens"]
        for name in ("nll", "forward_kl", "reverse_kl", "top1_agreement"):
            assert sum(result.documents[name]) / tokens == pytest.approx(result.metrics[name])
        assert result.training["steps"] == STEPS


def test_a_finished_study_only_reports_again(told, base, output, monkeypatch):
    monkeypatch.setattr("adakd_jax.studies.quality.Shared", None)  # nothing is loaded
    shown = start(make_study(base, output, resamples=20, methods=dict(reversed(METHODS.items()))))
    assert "4 of 4 runs are finished" in shown and "methods.csv" in shown


def test_a_run_alone_gives_what_it_gave_in_the_grid_and_one_that_diverges_stops_no_other(
    told, base, output, tmp_path
):
    broken = {"optimizer": {"learning_rate": 1e30}, "training": {"max_bad_steps": 1}}
    methods = {"diverges": broken, "AdaKD": {}}
    study = make_study(base, tmp_path, methods=methods, baseline="AdaKD", seeds=(1,))
    shown = start(study)
    assert "no result: 1 updates in a row" in shown
    assert "Without a result: diverges seed 1" in (tmp_path / "report.md").read_text()
    alone = plan(study)[0][1]
    again = read_result(alone.config.run_dir, alone.config)
    grid = plan(make_study(base, output))[0][3]
    before = read_result(grid.config.run_dir, grid.config)
    assert (grid.method, grid.seed) == (again.method, again.seed)
    assert (again.metrics, again.documents, again.answers) == (
        before.metrics,
        before.documents,
        before.answers,
    )


def test_other_settings_are_refused_with_what_differs_and_what_to_remove(told, base, output):
    study = make_study(base, output, run={"optimizer": {"learning_rate": 0.01}})
    with pytest.raises(OtherRunError, match=r"optimizer\.learning_rate: 0\.005 -> 0\.01") as error:
        start(study)
    assert f"remove {output}/runs/plain/seed0 to run it again" in str(error.value)
    with pytest.raises(OtherRunError, match=r"evaluation\.generate_examples: 2 -> 1"):
        start(make_study(base, output, run={"evaluation": {"generate_examples": 1}}))


def test_a_run_begun_with_other_settings_is_refused(study):
    run = plan(study())[0][0]
    other = plan(study(run={"optimizer": {"b1": 0.5}}))[0][0]
    write_provenance(run.config.run_dir, other.config, ["x"])
    with pytest.raises(OtherRunError, match=r"optimizer\.b1: 0\.5 -> 0\.9") as error:
        start(study())
    assert f"remove {run.config.run_dir}" in str(error.value)


def test_rows_that_changed_in_place_are_refused(told, base, output):
    run = plan(make_study(base, output))[0][0]
    result = read_result(run.config.run_dir, run.config)
    check_data([result], result.data)
    for name in ("held_out", "rows", "models"):
        changed = dataclasses.replace(result, data={**result.data, name: "other"})
        with pytest.raises(OtherRunError, match=rf"plain, seed 0: rows or .*\({name}: other -> "):
            check_data([changed], result.data)
        older = {key: value for key, value in result.data.items() if key != name}
        check_data([dataclasses.replace(result, data=older)], result.data)


def test_a_run_begun_with_other_rows_is_refused(study):
    run = plan(study())[0][0]
    begun = Path(run.config.run_dir)
    (begun / "checkpoints" / "step_1").mkdir(parents=True)
    (begun / FILE).write_text(json.dumps({"training rows": "digest 0"}))
    with pytest.raises(OtherInputsError, match="training rows: digest 0 -> digest"):
        start(study())


def test_epochs_are_held_to_the_steps_that_they_make(study):
    training = {"steps": None, "epochs": 1.0}
    config = study(run={"training": training, "optimizer": {"warmup_steps": 500}})
    with pytest.raises(ScheduleError, match="warm-up never ends within the run's 9 steps"):
        start(config)
