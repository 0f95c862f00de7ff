"""The splash kernel computes on a mesh what XLA does on one device."""

import json
import subprocess
import sys
from pathlib import Path


def test_splash_on_a_mesh_agrees_with_xla_on_one_device():
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.attention_on_mesh"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 3 and max(found.values()) < 1e-4, found
