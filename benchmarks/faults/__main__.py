"""Faults, tried: `python -m benchmarks.faults` kills a tiny run at random moments, and more.

Every run is the real command in a process of its own. What the file of results already holds is
not tried again.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from etils import epath

from adakd_jax.console import Console
from adakd_jax.whole_file import write_whole
from benchmarks.faults import of_checkpoints, of_disks, of_folders, of_inputs
from benchmarks.faults.kills import killed_run
from benchmarks.faults.observation import Case, to_json
from benchmarks.faults.report import hits, kept, table, write_into_readme
from benchmarks.faults.workplace import POLICIES, Workplace
from benchmarks.suite import ROOT

CASES = (
    Case("truncated", of_checkpoints.truncated),
    Case("bit-flipped", of_checkpoints.bit_flipped),
    Case("every-file", of_checkpoints.every_file),
    Case("all-damaged", of_checkpoints.all_damaged),
    Case("full-disk", of_disks.full_disk),
    Case("full-disk-for-records", of_disks.full_disk_for_records),
    Case("full-disk-for-export", of_disks.full_disk_for_export),
    Case("read-only", of_disks.read_only),
    Case("other-settings", of_folders.other_settings),
    Case("sigterm-twice", of_folders.sigterm_twice),
    Case("cut-compilations", of_folders.cut_compilations),
    Case("broken-teacher", of_inputs.broken_teacher),
    Case("empty-data", of_inputs.empty_data),
    Case("no-answers", of_inputs.no_answers),
    Case("only-prompts", of_inputs.only_prompts),
    Case("one-token", of_inputs.one_token),
    Case("no-response", of_inputs.no_response),
)


def main() -> None:
    """Runs the command; exit code 1 if a promise was not kept."""
    arguments = _arguments()
    console = Console()
    results = _read(arguments.results)
    if not arguments.report_only:
        place = Workplace(arguments.work)
        _try_others(place, arguments, results, console)
        _try_kills(place, arguments, results, console)
    text = table(results)
    console.print(text)
    if arguments.readme and not write_into_readme(text):
        console.print("README.md has no marks for the table")
    raise SystemExit(0 if kept(results) else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--kills", type=int, default=50, help="kills, at least (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="of moments and signals (default 0)")
    parser.add_argument(
        "--case", action="append", choices=[case.name for case in CASES], help="only these faults"
    )
    parser.add_argument("--again", action="store_true", help="try the faults again, not the kills")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "faults", help="folder of the runs"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=ROOT / "benchmarks" / "results" / "faults.json",
        help="file of results",
    )
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    parser.add_argument("--report-only", action="store_true", help="try nothing")
    return parser.parse_args()


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {"runs": [], "others": []}


def _write(file: Path, results: dict[str, Any]) -> None:
    write_whole(epath.Path(file), json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def _try_others(
    place: Workplace, arguments: argparse.Namespace, results: dict[str, Any], console: Console
) -> None:
    found = {other["name"]: other for other in results["others"]}
    chosen = [case for case in CASES if not arguments.case or case.name in arguments.case]
    for case in chosen:
        if case.name in found and not arguments.again:
            continue
        with console.status(case.name):
            observation = case.make(place)
        found[case.name] = to_json(case.name, observation)
        verdict = "kept" if observation.problem is None else f"NOT KEPT: {observation.problem}"
        console.print(
            f"{case.name}: {verdict} (exit {observation.code}) {observation.message}",
        )
        results["others"] = [found[each.name] for each in CASES if each.name in found]
        _write(arguments.results, results)


def _try_kills(
    place: Workplace, arguments: argparse.Namespace, results: dict[str, Any], console: Console
) -> None:
    while len(hits(results)) < arguments.kills:
        index = len(results["runs"])
        policy = list(POLICIES)[index % len(POLICIES)]
        run = killed_run(
            place,
            f"killed_{index}",
            of_checkpoints.reference(place, policy),
            random.Random(1000 * arguments.seed + index),
            console.print,
            policy=policy,
        )
        results["runs"].append(run)
        _write(arguments.results, results)
        console.print(f"{len(hits(results))} of {arguments.kills} kills")


if __name__ == "__main__":
    main()
