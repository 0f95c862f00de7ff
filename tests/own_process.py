"""Scripts that need a process of their own: the number of devices is fixed when JAX starts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def with_devices(count: int) -> str:
    """XLA_FLAGS for so many devices; the others, which make compiling cheap, stay as they are."""
    return f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"


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
