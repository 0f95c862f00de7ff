"""Every YAML of the project builds, and so does every command that its header shows."""

import re
import shlex
from pathlib import Path

import pytest

from adakd_jax.config import RunConfig
from adakd_jax.config.flags import read_flags
from adakd_jax.config.parse import resolve
from adakd_jax.config.yaml_file import read_yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs").glob("*.yaml"))
NAMES = [file.name for file in FILES]


def header(file):
    lines = file.read_text().splitlines()
    return "\n".join(line.removeprefix("#") for line in lines if line.startswith("#"))


def test_there_are_configs():
    assert {"gpt2_xl_to_base.yaml", "dolly_smollm2.yaml"} <= set(NAMES)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_it_builds(file):
    config, problems = resolve(RunConfig, read_flags(RunConfig, ["--config", str(file)]))
    assert problems == []
    assert config.run_dir == f"runs/{file.stem}"


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_the_commands_in_its_header_build(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = header(file).replace("\\\n", " ")
    commands = re.findall(r"python -m adakd_jax\.train (.*)", text)
    assert commands
    for command in commands:
        arguments = read_flags(RunConfig, shlex.split(command), switches=("dry_run",))
        assert arguments.files == [f"configs/{file.name}"]
        assert resolve(RunConfig, arguments)[1] == []


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_its_header_says_hardware_and_result(file):
    assert re.search(r"^ Hardware: +\S", header(file), re.M)
    assert re.search(r"^ Result: +\S", header(file), re.M)


@pytest.mark.parametrize(
    "name", ["gpt2_xl_to_base", "qwen2_7b_to_1.5b", "openllama2_7b_to_3b", "dolly_smollm2"]
)
def test_own_rows_replace_the_hubs(name):
    flags = "--data.train.kind file --data.train.path t.jsonl --data.columns.input input"
    argv = ["--config", str(ROOT / "configs" / f"{name}.yaml"), *flags.split()]
    config, problems = resolve(RunConfig, read_flags(RunConfig, argv))
    assert problems == []
    assert config.data.train.model_dump() == {"kind": "file", "path": "t.jsonl"}
    assert (config.data.columns.input, config.data.columns.output) == ("input", "response")


@pytest.mark.parametrize("name", ["gpt2_xl_to_base", "qwen2_7b_to_1.5b", "openllama2_7b_to_3b"])
def test_the_papers_settings(name):
    values = read_yaml(str(ROOT / "configs" / f"{name}.yaml")).values
    assert values["distill"]["focus"] == {
        "kind": "latf",
        "ema": 0.99,
        "tolerance": 0.05,
        "step_size": 0.05,
        "min_ratio": 0.1,
    }
    assert values["distill"]["temperature"] == {"kind": "idts", "base": 1.0, "strength": 0.5}
    assert values["training"]["batch_examples"] == 128
    assert (values["data"]["max_length"], values["data"]["max_prompt_length"]) == (512, 256)


@pytest.mark.parametrize("name", ["qwen2_7b_to_1.5b", "openllama2_7b_to_3b"])
def test_the_papers_adapters(name):
    lora = read_yaml(str(ROOT / "configs" / f"{name}.yaml")).values["student"]["lora"]
    assert (lora["rank"], lora["alpha"], lora["dropout"]) == (16, 64, 0.1)
