"""Times one contender in a process of its own: `python -m benchmarks.worker MODULE KIND BATCHES`.

Its last line of output is what it measured, as JSON.
"""

import argparse
import importlib
import json
import time
from pathlib import Path

from benchmarks.cases import load_batches
from benchmarks.memory import status_bytes

GIB = 2**30


def measure(module: str, kind: str, batches_file: Path, steps: int) -> dict[str, object]:
    """Warm up with every batch, then time `steps` steps over the batches in turn."""
    batches = load_batches(batches_file)
    began = time.perf_counter()
    step = importlib.import_module(f"benchmarks.contenders.{module}").make_step(kind, batches)
    losses = [step(batch) for batch in batches]
    warm_up = time.perf_counter() - began
    seconds: list[tuple[int, float]] = []
    busy = time.process_time()  # far below cores × seconds, something else was running
    for index in range(steps):
        which = index % len(batches)
        began = time.perf_counter()
        losses.append(step(batches[which]))
        seconds.append((which, time.perf_counter() - began))
    busy = time.process_time() - busy
    return {
        "seconds": seconds,
        "cpu_seconds": busy,
        "warm_up": warm_up,
        "peak_gib": status_bytes("VmHWM") / GIB,
        "losses": losses,
    }


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", help="a file of benchmarks/contenders")
    parser.add_argument("kind", help="what that file is to do")
    parser.add_argument("batches", type=Path, help="an .npz of `save_batches`")
    parser.add_argument("--steps", type=int, default=2, help="timed steps (default: %(default)s)")
    arguments = parser.parse_args()
    result = measure(arguments.module, arguments.kind, arguments.batches, arguments.steps)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
