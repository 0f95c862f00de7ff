"""Which Python the launchers make an environment with."""

import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pythons(tmp_path):
    """Puts stand-ins on an otherwise bare PATH: they print what a Python of their version would."""

    def install(name: str, version: str = "", folder: str = "bin") -> Path:
        file = tmp_path / folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        told = f"echo {version} {file}" if version else "echo no ensurepip >&2; exit 1"
        file.write_text(f"#!/bin/bash\n{told}\n")
        file.chmod(0o755)
        return file

    (tmp_path / "bin").mkdir()
    return install


def chosen(tmp_path, **variables):
    return subprocess.run(
        ["/bin/bash", "-c", "set -euo pipefail; source launch/venv.sh; chosen_python"],
        cwd=ROOT,
        env={"PATH": str(tmp_path / "bin")} | variables,
        capture_output=True,
        text=True,
    )


def test_the_newest_that_can_make_an_environment(pythons, tmp_path):
    pythons("python3.13")  # Debian's without python3.13-venv
    pythons("python3.14", "3.14")
    pythons("python3", "3.11")
    wanted = pythons("python3.12", "3.12")
    assert chosen(tmp_path).stdout == f"{wanted}\n"


def test_a_python_that_pyenv_keeps(pythons, tmp_path):
    pythons("python3.12", "3.12")
    pyenv = pythons("pyenv")
    pyenv.write_text(f"#!/bin/bash\necho {tmp_path}/pyenv\n")
    wanted = pythons("python", "3.13", folder="pyenv/versions/3.13.5/bin")
    assert chosen(tmp_path).stdout == f"{wanted}\n"


def test_a_python_that_is_named(pythons, tmp_path):
    pythons("python3.13", "3.13")
    assert chosen(tmp_path, PYTHON="/opt/python").stdout == "/opt/python\n"


def test_without_any_it_says_what_is_needed(pythons, tmp_path):
    pythons("python3", "3.9")
    done = chosen(tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert "3.13, 3.12, 3.11" in done.stderr and "PYTHON=" in done.stderr


def test_the_lowest_versions_are_those_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = set()
    for line in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        name, least, version = line.partition(">=")
        if least:
            declared.add(f"{name.partition('[')[0]}=={version.partition(',')[0]}")
    listed = (ROOT / ".ci" / "lowest.txt").read_text().split("\n")
    assert {line for line in listed if line and not line.startswith("#")} == declared
