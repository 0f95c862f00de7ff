"""A valid configuration as nested values and as a file, and a way to read command lines."""

import copy

import pytest
import yaml

from adakd_jax.config import RunConfig
from adakd_jax.config.flags import read_flags
from adakd_jax.config.parse import parse, resolve

VALUES = {
    "run_dir": "runs/x",
    "data": {"train": {"kind": "file", "path": "rows.jsonl"}},
    "teacher": {"path": "owner/teacher"},
    "student": {"kind": "layers", "layers": [0, 2, 5]},
    "distill": {"focus": {"kind": "latf", "ema": 0.9, "monitor": "all_tokens"}},
    "optimizer": {"learning_rate": 1e-4},
    "training": {"steps": 10, "batch_rows": 8},
}


@pytest.fixture
def values():
    return copy.deepcopy(VALUES)


@pytest.fixture
def write(tmp_path):
    """Writes a YAML file, from text or nested values, and returns its path."""

    def write(content, name="x.yaml"):
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def file(write, values):
    return write(values)


@pytest.fixture
def run(file):
    """Runs the parser as the train command does, on the valid file unless `--config` is given."""

    def run(*argv):
        argv = argv if "--config" in argv else ("--config", file, *argv)
        return parse(
            RunConfig,
            argv,
            prog="python -m adakd_jax.train",
            description="Distils a student.",
            extra_flags={"dry_run": "build everything but the weights"},
        )

    return run


@pytest.fixture
def problems(file):
    """Returns what is wrong with a command line, by key."""

    def problems(*argv):
        argv = argv if "--config" in argv else ("--config", file, *argv)
        config, found = resolve(RunConfig, read_flags(RunConfig, argv))
        assert (config is None) == bool(found)
        assert len({problem.key for problem in found}) == len(found)
        return {problem.key: problem for problem in found}

    return problems
