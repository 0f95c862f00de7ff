"""The launchers as a user calls them, on a machine without any cloud."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VARIABLES = {
    "PROJECT": "proj",
    "ZONE": "us-west4-a",
    "LOCATION": "us-west4",
    "CLUSTER": "tpus",
    "IMAGE": "us-docker.pkg.dev/proj/repo/adakd_jax:1",
    "RUN_DIR": "gs://bucket/run",
    "CONFIG": "configs/quickstart.yaml",
    "NAME": "trial",
}
CLOUD = ("gcloud", "kubectl", "docker", "sbatch", "scancel", "squeue", "sky", "curl", "uv")


class Launchers:
    """Calls launchers with their variables, and with programs of the cloud that stand in for it."""

    def __init__(self, folder: Path):
        self.programs = folder / "bin"
        self.calls = folder / "calls"
        self.programs.mkdir()
        for name in CLOUD:
            self.program(name, "exit 97")

    def program(self, name: str, script: str) -> None:
        """Puts a program on the PATH that notes its call and then runs `script`."""
        file = self.programs / name
        file.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>{self.calls}\n{script}\n')
        file.chmod(0o755)

    def environment(self, **variables: str) -> dict[str, str]:
        path = f"{self.programs}:{os.environ['PATH']}"
        return {**os.environ, **VARIABLES, "PATH": path, **variables}

    def __call__(self, launcher: str, *arguments: str, **variables: str):
        return subprocess.run(
            ["bash", f"launch/{launcher}", *arguments],
            cwd=ROOT,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def dry_run(self, launcher: str, *arguments: str, **variables: str) -> str:
        done = self(launcher, "--dry-run", *arguments, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def launch(tmp_path):
    return Launchers(tmp_path)
