"""Scripts that need a process of their own: the number of devices is fixed when JAX starts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def told_by(*script: str, timeout: float = 300) -> Any:
    """What a script of ours (`-m MODULE` or `-c CODE`) prints as its last line, JSON."""
    done = subprocess.run(
        [sys.executable, *script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
