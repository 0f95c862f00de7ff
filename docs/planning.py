"""The tables and the plot of docs/planning.md, from plans that this makes.

    python docs/planning.py             make the plans that are missing, then tables and plot
    python docs/planning.py --commands  print the commands
    python docs/planning.py --render    tables and plot only

A plan is `python -m adakd_jax.plan … --json docs/planning/NAME.json`; delete a file to make it
again.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "planning"
GIB = 2**30
Plans = list[dict[str, Any]]
PAIRS = {
    "qwen2": ("Qwen2-7B → 1.5B", "configs/qwen2_7b_to_1.5b.yaml"),
    "openllama2": ("OpenLLaMA2-7B → 3B", "configs/openllama2_7b_to_3b.yaml"),
}
# Dolly in the alpaca template: 156 tokens an example, 82 of them answers (benchmarks/README.md);
# databricks-dolly-15k has 15,011 rows.
DOLLY = "--examples 15011 --tokens_per_example 156 --response_share 0.53"


class Case(NamedTuple):
    """One plan: file name, pair of models, and flags after the configuration."""

    name: str
    pair: str
    flags: str

    @property
    def command(self) -> str:
        """What makes it."""
        config = PAIRS[self.pair][1]
        file = (RESULTS / f"{self.name}.json").relative_to(ROOT)
        return f"python -m adakd_jax.plan --config {config} {self.flags} --json {file}"

    def plans(self) -> Plans:
        """What was found; nothing before it was made."""
        file = RESULTS / f"{self.name}.json"
        return json.loads(file.read_text()) if file.exists() else []


ROWS = 8
PODS = "v5e-16,v5e-256,v5p-128,v6e-256"
GROWING = "v5e-4,v5e-8,v5e-16,v5e-32,v5e-64,v5e-128,v5e-256"
SCALING = {
    "fsdp 16": ("v5e-16,v5e-32,v5e-64,v5e-128,v5e-256", 16),
}
CASES = {
    "batch": [
        Case(f"{pair}_batch", pair, f"--topology v5e-16 --mesh.fsdp 16 {DOLLY}") for pair in PAIRS
    ],
    "pods": [
        Case(
            f"{pair}_pods",
            pair,
            f"--topology {PODS} --mesh.fsdp 16 --rows_per_device {ROWS} {DOLLY}",
        )
        for pair in PAIRS
    ],
    "scaling": [],
}


MARKS = "<!-- plans: start -->", "<!-- plans: end -->"
PAGE, README = ROOT / "docs" / "planning.md", ROOT / "README.md"
POD_COLUMNS = (
    *("", "mesh", "rows a device", "weights, optimizer", "teacher", "temporaries", "GiB of HBM"),
    *("sends GiB", "s a step", "tokens/s", "MFU", "chip-hours"),
)


def tables() -> Iterator[str]:
    """Markdown of all plans, a table a pair."""
    for pair, (title, config) in PAIRS.items():
        yield f"**{title}** (`{config}`)"
        yield ""
        yield f"| {' | '.join(POD_COLUMNS)} |"
        yield "|---|---|" + "--:|" * (len(POD_COLUMNS) - 2)
        for case in CASES["pods"]:
            if case.pair == pair:
                yield from (f"| {' | '.join(_pod_row(plan))} |" for plan in case.plans())
        yield ""


def _pod_row(plan: dict[str, Any]) -> list[str]:
    parts, memory = plan["memory"]["parts"], plan["memory"]
    mesh = " × ".join(f"{axis} {size}" for axis, size in plan["mesh"].items() if size > 1)
    verdict = "" if memory["fits"] else " **no**"
    return [
        plan["topology"]["name"],
        mesh,
        str(plan["rows_per_device"]),
        f"{(parts['student'] + parts['optimizer and averages']) / GIB:.2f}",
        f"{parts['teacher'] / GIB:.2f}",
        f"{parts['temporaries'] / GIB:.2f}",
        f"{memory['total'] / GIB:.2f} of {memory['capacity'] / GIB:.2f}{verdict}",
        *_times(plan),
    ]


def _times(plan: dict[str, Any]) -> list[str]:
    """Bytes sent, and the estimate from best to worst; dashes where there is no program."""
    estimate = plan["estimate"]
    if estimate is None:
        return ["–"] * 5
    best, worst = estimate["overlapped"], estimate["in_turn"]
    sent = sum(one["sent"] for one in plan["collectives"])
    hours = "–"
    if best["chip_hours"] is not None:
        hours = f"{best['chip_hours']:.1f}–{worst['chip_hours']:.1f}"
    return [
        f"{sent / GIB:.1f}",
        f"{best['seconds']:.2f}–{worst['seconds']:.2f}",
        f"{worst['tokens_a_second']:,.0f}–{best['tokens_a_second']:,.0f}",
        f"{worst['mfu']:.0%}–{best['mfu']:.0%}",
        hours,
    ]


def write(path: Path, text: str) -> None:
    """Put text between the marks of a file."""
    page = path.read_text()
    before, _, rest = page.partition(MARKS[0])
    path.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")


def plot(file: Path) -> None:
    """Memory and bytes sent of a device, against devices, at the same rows a device."""
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for case in CASES["scaling"]:
        plans = case.plans()
        chips = [plan["topology"]["chips"] for plan in plans]
        total = [plan["memory"]["total"] / GIB for plan in plans]
        known = [
            (plan["topology"]["chips"], sum(one["sent"] for one in plan["collectives"]) / GIB)
            for plan in plans
            if plan["collectives"] is not None
        ]
        label = case.flags.partition("--mesh.")[2].partition(" --")[0]
        panels[0].plot(chips, total, marker="o", label=label)
        panels[1].plot(*zip(*known, strict=True), marker="o", label=label)
    panels[0].axhline(15.75, color="black", linewidth=0.8, linestyle="--")
    panels[0].set(ylabel="GiB of a device")
    panels[1].set(ylabel="GiB sent by a device in a step")
    for panel in panels:
        panel.set(xscale="log", xlabel="v5e chips", ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Make what is missing, then write tables and plot."""
    cases = [case for group in CASES.values() for case in group]
    if "--commands" in sys.argv:
        print("\n".join(case.command for case in cases))
        return
    RESULTS.mkdir(exist_ok=True)
    for case in cases:
        if not case.plans() and "--render" not in sys.argv:
            print(case.command, flush=True)
            # Exit code 1 is a plan, too: of what does not fit.
            subprocess.run([sys.executable, *shlex.split(case.command)[1:]], cwd=ROOT, check=False)


if __name__ == "__main__":
    main()
