"""A study whose methods start from one run that is trained before them, measured on more sets."""

import json
import signal
from pathlib import Path

import pytest
from pydantic import ValidationError

from adakd_jax.config.provenance import OtherRunError
from adakd_jax.studies.plan import first_run, plan
from adakd_jax.studies.results import read_result
from adakd_jax.training.records import MetricsLog
from tests.studies.tiny_study import STEPS, make_study, start

SFT = {"distill": {"kd_weight": 0.0, "ce_weight": 1.0}, "training": {"steps": 2}}


def test_methods_start_from_what_the_first_run_exports(study, tmp_path):
    one = study(first=SFT, run={"student": {"remat": "full"}})
    first = first_run(one)
    assert first.run_dir == f"{tmp_path}/study/first" and first.student.kind == "layers"
    assert first.distill.ce_weight == 1.0 and first.training.steps == 2
    runs, problems = plan(one)
    assert problems == []
    for run in runs:
        assert run.config.student.kind == "checkpoint" and run.config.student.remat == "full"
        assert run.config.student.path == f"{first.run_dir}/export"
        assert run.config.distill.ce_weight == 0.0 and run.config.training.steps == STEPS
    assert first_run(study()) is None


def test_mistakes_of_the_first_run_are_told(study):
    bad = {"optimizer": {"learning_rate": -1}, "data": {"max_length": 64}, "seed": 3}
    runs, problems = plan(study(first=bad))
    assert runs == []
    assert {problem.key for problem in problems} == {
        "first: optimizer.learning_rate", "first: data", "first: seed",
    }  # fmt: skip


@pytest.mark.parametrize("changes", [{"first": SFT}, {"suites": ("vicuna",)}])
def test_seconds_need_neither(study, changes):
    with pytest.raises(ValidationError, match="depend on neither"):
        study(measure="overhead", **changes)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    rows = [{"instruction": f"Count {n}.", "output": f"{n}, {n + 1}."} for n in range(3)]
    for name in ("vicuna", "sinst"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    return folder


@pytest.mark.slow
def test_a_study_with_a_first_run_goes_on_wherever_it_was_stopped(base, sets, tmp_path):
    study = make_study(base, tmp_path, first=SFT, suites=("vicuna",), suite_data=str(sets))
    write, written = MetricsLog.write, []

    def count_and_stop(self, step, values, kind="train"):
        write(self, step, values, kind)
        written.append(kind)
        # Once in the first run, once in the second of the methods'.
        if written.count("train") in (1, 2 + STEPS + 1):
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsLog, "write", count_and_stop)
        for _ in range(2):
            with pytest.raises(SystemExit):
                start(study)
        shown = start(study)
    assert written.count("train") == 2 + 4 * STEPS
    assert "is finished" in shown
    _tells_of_all(study, tmp_path)
    _refuses_what_is_other(base, sets, tmp_path)


def _tells_of_all(study, output: Path):
    report = (output / "report.md").read_text()
    assert "*starting student*" in report and "## Vicuna" in report
    assert "trained before: distill.kd_weight 0" in report
    lines = (output / "suites.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 and lines[1].startswith("plain,0,vicuna,")
    run = plan(study)[0][1]
    result = read_result(run.config.run_dir, run.config)
    vicuna = result.on("vicuna")
    assert len(vicuna.rouge_l) == 2 and len(vicuna.documents["tokens"]) == 3
    assert vicuna.metrics["nll"] != result.metrics["nll"]


def _refuses_what_is_other(base, sets, output: Path):
    more = make_study(base, output, first=SFT, suites=("vicuna", "sinst"), suite_data=str(sets))
    with pytest.raises(OtherRunError, match="measured without sinst; valid: --suites vicuna"):
        start(more)
    other = make_study(base, output, first={**SFT, "training": {"steps": 3}})
    with pytest.raises(OtherRunError, match=r"training\.steps: 2 -> 3"):
        start(other)
