"""What is to be known on a GPU in four minutes: `python -m benchmarks.gpu --out FOLDER`.

Parts run one after the other, the most telling first, each in a process of its own that ends when
its time is up. Each leaves a file, and a part that has its file is not run again. On a CPU,
`--small` goes the same way with tiny sizes.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.gpu.goals import goals
from benchmarks.gpu.options import TEACHER, Options, shown
from benchmarks.gpu.parts import PARTS, TOTAL_SECONDS
from benchmarks.gpu.processes import run_part

MARKS = {True: "pass", False: "FAIL", None: "open"}


def main() -> None:
    """Runs the command. Exit codes: 0 all that was asked for was run, whatever it found; 1 the time
    was up before; 2 wrong flags.
    """
    arguments = _arguments()
    options = Options(arguments.small, arguments.out, arguments.rows, arguments.teacher)
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    left_out = []
    for name in arguments.only:
        if (found := options.result(name)) is not None and not (arguments.again and found["error"]):
            print(f"--- {name}: there already", flush=True)
            continue
        left = arguments.seconds - (time.monotonic() - began)
        if left <= 0:
            left_out.append(name)
            continue
        _run(name, options, min(left, PARTS[name].seconds * arguments.slack))
    lines = list(_goal_lines(options))
    (options.out / "goals.txt").write_text("\n".join(lines) + "\n")
    print("--- goals", *lines, sep="\n")
    print(f"{time.monotonic() - began:.0f} s; results in {options.out}")
    if left_out:
        print(f"not begun, the time is up: {', '.join(left_out)}; the same command goes on")
        raise SystemExit(1)


def _arguments() -> argparse.Namespace:
    listed = "\n".join(
        f"  {name:12} {part.seconds:3.0f} s  {part.title}" for name, part in PARTS.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=f"{__doc__.strip()}\n\nparts:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--small", action="store_true", help="tiny sizes, for a CPU")
    parser.add_argument("--only", type=_parts, default=list(PARTS), help="parts, by commas")
    parser.add_argument("--again", action="store_true", help="run parts again that failed")
    parser.add_argument("--rows", type=Path, help="JSONL of Dolly rows; without it, none of Dolly")
    parser.add_argument("--teacher", default=TEACHER, help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, help=f"in all (default {TOTAL_SECONDS:.0f}; small: no limit)"
    )
    arguments = parser.parse_args()
    if arguments.rows is not None and not arguments.rows.is_file():
        parser.error(f"--rows {arguments.rows}: no such file")
    arguments.slack = 20.0 if arguments.small else 1.0
    if arguments.seconds is None:
        arguments.seconds = float("inf") if arguments.small else TOTAL_SECONDS
    return arguments


def _parts(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {unknown[0]!r}; valid: {', '.join(PARTS)}")
    return [name for name in PARTS if name in names]


def _run(name: str, options: Options, seconds: float) -> None:
    """Run a part, print its rows as they come, and write its file."""
    part = PARTS[name]
    print(f"--- {name}: {part.title} (at most {seconds:.0f} s)", flush=True)
    began = time.monotonic()
    rows = []
    run = run_part(name, options, seconds, dict(part.environment))
    for row in run.rows():
        rows.append(row)
        print(f"{time.monotonic() - began:5.0f} s  {shown(row)}", flush=True)
    if run.error:
        print(f"       FAILED: {run.error}", flush=True)
    result = {
        "part": name,
        "title": part.title,
        "small": options.small,
        "python": sys.version.split()[0],
        "seconds": time.monotonic() - began,
        "error": run.error,
        "rows": rows,
    }
    unfinished = options.out / f"{name}.json.new"
    unfinished.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    unfinished.rename(options.out / f"{name}.json")


def _goal_lines(options: Options):
    for goal in goals(options):
        yield f"{MARKS[goal.passed]}  {goal.title}: {goal.found}"


if __name__ == "__main__":
    main()
