"""Every shipped study is a grid of valid runs, and so is every command that its header shows."""

import re
import shlex
from pathlib import Path

import pytest

from adakd_jax.config import RunConfig
from adakd_jax.config.flags import read_flags
from adakd_jax.config.parse import resolve
from adakd_jax.config.study import StudyConfig
from adakd_jax.studies.plan import first_run, plan

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "studies"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
HELD_OUT = ["--run.data.validation.kind", "file", "--run.data.validation.path", "h.jsonl"]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def grid(argv):
    study, problems = resolve(StudyConfig, read_flags(StudyConfig, argv))
    assert problems == []
    runs, problems = plan(study)
    assert problems == []
    return study, runs


def header(name):
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    comments = [line.removeprefix("#") for line in lines if line.startswith("#")]
    return "\n".join(comments).replace("\\\n", " ")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "base"])
def test_it_is_a_grid(name):
    study, runs = grid(["--config", f"configs/studies/{name}.yaml", *HELD_OUT])
    assert study.output == f"runs/studies/{name}"
    once = len(study.probes)
    assert len(runs) == (len(study.methods) - once) * len(study.seeds) + once
    first = [run.config for run in runs if run.seed == study.seeds[0]]
    settings = [(config.distill, config.student) for config in first]
    assert all(settings.count(one) == 1 for one in settings)


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_in_its_header_build(name):
    text = header(name)
    commands = re.findall(r"python -m adakd_jax\.(study|train) (.*)", text)
    assert commands
    for command, arguments in commands:
        argv = shlex.split(arguments)
        if command == "study":
            grid(argv)
        else:
            assert resolve(RunConfig, read_flags(RunConfig, argv))[1] == []
    if name != "base":
        assert re.search(r"^ Hardware: +\S", text, re.M)
        assert re.search(r"^ Result: +\S", text, re.M)


def test_own_rows_as_the_base_says():
    flags = re.findall(r"--run\.\S+ +[A-Za-z]\S*", header("base"))
    assert len(flags) == 4
    argv = [word for flag in flags for word in flag.split()]
    _, runs = grid(["--config", "configs/studies/ablation.yaml", *HELD_OUT, *argv])
    assert runs[0].config.data.train.model_dump() == {"kind": "file", "path": "TRAIN.jsonl"}
    assert runs[0].config.data.columns.input == "input"


def test_what_the_studies_compare():
    ablation, _ = grid(["--config", "configs/studies/ablation.yaml", *HELD_OUT])
    baselines, _ = grid(["--config", "configs/studies/baselines.yaml", *HELD_OUT])
    assert len(ablation.seeds) == len(baselines.seeds) == 3
    assert ablation.baseline in ablation.methods and len(ablation.methods) == 8
    for name in ("FKD", "RKD", "ABKD", "JSD"):
        assert baselines.against[f"{name} + AdaKD"] == name
    assert {"SFT", "EGAD"} <= baselines.methods.keys()


def test_the_regime_is_the_papers():
    study, runs = grid(["--config", "configs/studies/regime.yaml", *HELD_OUT])
    first = first_run(study)
    assert first is not None and not first.distill.has_kd and first.training.epochs == 1
    assert len(first.student.layers) == 15
    assert [run.method for run in runs[:8]] == list(study.methods)
    assert [run.seed for run in runs] == [0] * 8 + [1] * 8 + [2] * 8
    slots = {run.method: run.config.distill for run in runs[:8]}
    kinds = {
        name: (s.focus.kind, s.temperature.kind, s.divergence.kind) for name, s in slots.items()
    }
    assert kinds == {
        "RKD": ("all", "fixed", "reverse_kl"),
        "AdaKD": ("latf", "idts", "reverse_kl"),
        "FKD": ("all", "fixed", "forward_kl"),
        "FKD + AdaKD": ("latf", "idts", "forward_kl"),
        "AdaKD, τ_base = 1.2": ("latf", "idts", "reverse_kl"),
        "RKD + LATF": ("latf", "fixed", "reverse_kl"),
        "RKD + IDTS": ("all", "idts", "reverse_kl"),
        "EGAD": ("curriculum", "entropy", "forward_kl"),
    }
    assert slots["AdaKD, τ_base = 1.2"].temperature.base == 1.2
    for run in runs:
        assert run.config.student.path == f"{study.output}/first/export"
        assert run.config.data.max_length == 512 and run.config.training.epochs == 5
        assert run.config.distill.ce_weight == 0.0
