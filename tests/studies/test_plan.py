"""The grid: complete runs in the right order, or mistakes that name their method."""

import pytest
from pydantic import ValidationError

from adakd_jax.config import AllTokens, Latf, TopRatio
from adakd_jax.config.flags import read_flags
from adakd_jax.config.parse import resolve
from adakd_jax.config.study import StudyConfig
from adakd_jax.studies.plan import plan
from adakd_jax.study import main


def keys(study):
    runs, problems = plan(study)
    assert runs == []
    return {problem.key: problem for problem in problems}


def test_all_methods_of_a_seed_come_before_the_next_seed(study):
    runs, problems = plan(study(seeds=(4, 2)))
    assert problems == []
    expected = [("plain", 4), ("AdaKD", 4), ("plain", 2), ("AdaKD", 2)]
    assert [(run.method, run.seed) for run in runs] == expected
    assert [run.config.seed for run in runs] == [4, 4, 2, 2]
    assert runs[1].config.run_dir.endswith("study/runs/AdaKD/seed4")


def test_probes_come_last_with_one_seed(study):
    rates = {"probe": 1e-2, "other": 2e-2}
    methods = {name: {"optimizer": {"learning_rate": rate}} for name, rate in rates.items()}
    methods = {"plain": {}, **methods}
    runs, problems = plan(study(methods=methods, seeds=(4, 2), probes=("probe",)))
    assert problems == []
    expected = [("plain", 4), ("other", 4), ("plain", 2), ("other", 2), ("probe", 4)]
    assert [(run.method, run.seed) for run in runs] == expected
    with pytest.raises(ValidationError, match="no method is called 'nobody'"):
        study(probes=("nobody",))
    with pytest.raises(ValidationError, match="the baseline has all seeds"):
        study(probes=("plain",))


def test_a_method_adjusts_the_base_or_chooses_another_kind(study):
    methods = {
        "base": {},
        "adjusted": {"distill": {"focus": {"tolerance": 0.2}}},
        "other": {"distill": {"focus": {"kind": "top_ratio", "ratio": 0.5}}},
        "all": {"distill": {"focus": {"kind": "all"}}},
    }
    runs, _ = plan(study(methods=methods, baseline="base", seeds=(0,)))
    assert [run.config.distill.focus for run in runs] == [
        Latf(ema=0.5),
        Latf(ema=0.5, tolerance=0.2),
        TopRatio(ratio=0.5),
        AllTokens(),
    ]


def test_settings_of_all_runs_win_over_the_base_and_methods_over_them(study):
    changes = {"training": {"steps": 7}, "optimizer": {"learning_rate": 1e-3}}
    methods = {"plain": {}, "fast": {"optimizer": {"learning_rate": 1e-2}}}
    runs, _ = plan(study(run=changes, methods=methods, seeds=(0,)))
    assert [run.config.optimizer.learning_rate for run in runs] == [1e-3, 1e-2]
    assert all(run.config.training.steps == 7 for run in runs)
    assert all(run.config.training.batch_rows == 2 for run in runs)


def test_mistakes_name_their_method(study):
    methods = {
        "plain": {},
        "A": {"distill": {"focus": {"kind": "top_ratio", "ratio": 2.0}}},
        "B": {"distil": {}, "optimizer": {"warmup_steps": 99}},
        "C": {"seed": 3, "data": {"template": "text"}},
    }
    found = keys(study(methods=methods))
    assert found.keys() == {
        "methods.A: distill.focus.ratio",
        "methods.B: distil",
        "methods.B: optimizer.warmup_steps",
        "methods.C: seed",
        "methods.C: data",
    }
    assert found["methods.A: distill.focus.ratio"].given[0].origin == "methods.A"
    assert "the same for all methods" in found["methods.C: data"].valid


def test_a_mistake_of_all_runs_is_reported_once_with_its_line(study, base):
    bad = base.with_name("bad.yaml")
    text = base.read_text()
    bad.write_text(text.replace("learning_rate: 0.005", "learning_rate: -1"))
    found = keys(study(base=str(bad)))
    line = 1 + text[: text.index("learning_rate")].count("\n")
    assert found["optimizer.learning_rate"].given[0].origin == f"{bad}:{line}"
    assert len(found) == 1
    assert keys(study(run={"training": {"steps": 0}})).keys() == {"training.steps"}


def test_a_base_that_is_not_there(study):
    (key,) = keys(study(base="nowhere.yaml"))
    assert key.startswith("base: ") and "nowhere.yaml" in key


def test_quality_needs_held_out_rows_and_overhead_does_not(study):
    without = {"data": {"validation": None}}
    assert keys(study(run=without)).keys() == {"run.data.validation"}
    assert plan(study(run=without, measure="overhead"))[1] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "nobody"}, "no method is called 'nobody'; valid: one of plain, AdaKD"),
        ({"against": {"AdaKD": "nobody"}}, "no method is called 'nobody'"),
        ({"methods": {"a/b": {}}}, "should match pattern"),
        ({"seeds": (1, 1)}, "a seed stands twice; did you mean 1?"),
        ({"seeds": ()}, "at least 1 item"),
    ],
)
def test_what_is_no_study(study, changes, message):
    with pytest.raises(ValidationError) as error:
        study(**changes)
    assert message in str(error.value)


def test_flags_reach_the_settings_of_all_runs(base, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(
        f"base: {base}\noutput: runs/x\nbaseline: A\nmethods: {{A: {{}}}}\n"
        "run: {data: {train: {kind: hub, name: owner/rows}, max_length: 56}}\n"
    )
    flags = "--run.data.train.kind file --run.data.train.path mine.jsonl --run.training.steps 5"
    argv = ["--config", str(file), *flags.split()]
    config, problems = resolve(StudyConfig, read_flags(StudyConfig, argv))
    assert problems == []
    data = plan(config)[0][0].config.data
    assert data.train.model_dump() == {"kind": "file", "path": "mine.jsonl"}
    assert data.max_length == 56
    assert plan(config)[0][0].config.training.steps == 5
    _, problems = resolve(StudyConfig, read_flags(StudyConfig, [*argv, "--run.data.trian", "x"]))
    assert [problem.key for problem in problems] == ["--run.data.trian"]


def test_the_command_reports_mistakes_before_anything_is_loaded(base, tmp_path, capsys):
    file = tmp_path / "study.yaml"
    file.write_text(
        f"base: {base}\noutput: {tmp_path}/out\nbaseline: A\n"
        "methods: {A: {distill: {focus: {kind: nothing}}}}\n"
    )
    with pytest.raises(SystemExit) as stopped:
        main(["--config", str(file)])
    assert stopped.value.code == 2
    assert "methods.A: distill.focus.kind: no such kind" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
