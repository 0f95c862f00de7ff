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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "planning"
MIB, GIB = 2**20, 2**30
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


# All weights trained, not adapters. The same rows on every device: the batch grows with the slice.
SETTINGS = f"--student.lora null --mesh.fsdp 16 --rows_per_device 8 {DOLLY}"
CASES = [
    Case("qwen2_pods", "qwen2", f"--topology v5e-16,v5e-256,v5p-128,v6e-256 {SETTINGS}"),
    Case("openllama2_pods", "openllama2", f"--topology v5e-16,v5e-256,v5p-128,v6e-256 {SETTINGS}"),
    Case("qwen2_scaling", "qwen2", f"--topology v5e-32,v5e-64 {SETTINGS}"),
]
# GPUs: the configured batch, adapters as configured or all weights, on one GPU and over eight.
EIGHT = "--topology h100:8,a100-80g:8 --mesh.fsdp 8"
TRAINED = {"adapters": "", "all weights": " --student.lora null"}
GPU_CASES = [
    Case(f"{pair}_{weights.replace(' ', '_')}_{name}", pair, f"{where}{flag} {DOLLY}")
    for pair in PAIRS
    for weights, flag in TRAINED.items()
    for name, where in {"gpu": "--topology h100:1", "gpus": EIGHT}.items()
]
# One chip in slices of many sizes.
SCALED = "v5e"

PAGE, README = ROOT / "docs" / "planning.md", ROOT / "README.md"
PLOT = RESULTS / "scaling.png"
COLUMNS = (
    *("", "mesh", "student and optimizer", "teacher", "temporaries", "GiB of HBM"),
    *("sends GiB", "s a step", "tokens/s", "MFU", "chip-hours"),
)
GPU_COLUMNS = (
    *("trained", "", "mesh", "rows a GPU", "student and optimizer", "teacher", "temporaries"),
    *("GiB", "sends GiB", "s a step", "tokens/s", "MFU", "GPU-hours"),
)
SCALING_COLUMNS = (
    *("", "chips", "mesh", "rows a step", "GiB", "all-gather", "all-reduce", "reduce-scatter"),
    *("collective-permute", "s a step", "tokens/s a chip"),
)


def pods(pair: str) -> Plans:
    """Plans of a pair of models on the slices that are compared."""
    return [plan for case in CASES if case.name == f"{pair}_pods" for plan in case.plans()]


def scaling(pair: str) -> Plans:
    """Plans of a pair that fit on slices of one chip, from few to many."""
    plans = [plan for case in CASES if case.pair == pair for plan in case.plans()]
    of_chip = [plan for plan in plans if plan["topology"]["name"].startswith(f"{SCALED}:")]
    fitting = [plan for plan in of_chip if plan["memory"]["fits"]]
    return sorted(fitting, key=lambda plan: plan["topology"]["chips"])


def page_tables() -> str:
    """Markdown of all plans: the pods, a table a pair, then what changes with the devices."""
    lines = []
    for pair, (title, config) in PAIRS.items():
        lines += [f"**{title}** (`{config}`), 8 rows of 512 tokens a device", ""]
        lines += [*_table(COLUMNS, [_pod_row(plan) for plan in pods(pair)], 2), ""]
    lines += ["**The same 8 rows a device on ever more devices**; sent by a device a step, MiB", ""]
    rows = [
        _scaling_row(title, plan) for pair, (title, _) in PAIRS.items() for plan in scaling(pair)
    ]
    return "\n".join([*lines, *_table(SCALING_COLUMNS, rows, 1)])


def readme_table() -> str:
    """Markdown of the pods, both pairs in one table."""
    rows = [
        [title, plan["topology"]["name"], _memory(plan), *_times(plan)[1:]]
        for pair, (title, _) in PAIRS.items()
        for plan in pods(pair)
    ]
    columns = ("", "slice", "GiB of HBM", "s a step", "tokens/s", "MFU", "chip-hours")
    return "\n".join(_table(columns, rows, 2))


def page_gpu_tables() -> str:
    """Markdown of the plans for GPUs, a table a pair."""
    lines = []
    for pair, (title, config) in PAIRS.items():
        lines += [f"**{title}** (`{config}`), 128 examples a step", ""]
        rows = [
            [weights, *_pod_row(plan)[:2], _rows(plan), *_pod_row(plan)[2:]]
            for weights, plan in gpu_plans(pair)
        ]
        lines += [*_table(GPU_COLUMNS, rows, 3), ""]
    return "\n".join(lines[:-1])


def readme_gpu_table() -> str:
    """Markdown of the plans for GPUs, both pairs in one table."""
    rows = [
        [title, weights, plan["topology"]["name"], _memory(plan), *_times(plan)[1:]]
        for pair, (title, _) in PAIRS.items()
        for weights, plan in gpu_plans(pair)
    ]
    columns = ("", "trained", "GPUs", "GiB", "s a step", "tokens/s", "MFU", "GPU-hours")
    return "\n".join(_table(columns, rows, 3))


def gpu_plans(pair: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is trained, and each plan for GPUs."""
    for weights in TRAINED:
        for case in GPU_CASES:
            if case.pair == pair and weights.replace(" ", "_") in case.name:
                yield from ((weights, plan) for plan in case.plans())


def _rows(plan: dict[str, Any]) -> str:
    return f"{plan['micro_batches']} × {plan['rows_per_device']}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * left + "--:|" * (len(columns) - left)
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _pod_row(plan: dict[str, Any]) -> list[str]:
    parts = plan["memory"]["parts"]
    return [
        f"`{plan['topology']['name']}`",
        _mesh(plan),
        f"{(parts['student'] + parts['optimizer and averages']) / GIB:.2f}",
        f"{parts['teacher'] / GIB:.2f}",
        f"{parts['temporaries'] / GIB:.2f}",
        _memory(plan),
        *_times(plan),
    ]


def _scaling_row(title: str, plan: dict[str, Any]) -> list[str]:
    chips = plan["topology"]["chips"]
    seconds = [plan["estimate"][which]["seconds"] for which in ("overlapped", "in_turn")]
    each = plan["micro_batches"] * plan["rows"] * plan["length"] / chips
    return [
        title,
        str(chips),
        _mesh(plan),
        str(plan["micro_batches"] * plan["rows"]),
        f"{plan['memory']['total'] / GIB:.2f}",
        *(f"{_sent(plan, kind) / MIB:,.0f}" for kind in SCALING_COLUMNS[5:9]),
        f"{seconds[0]:.2f}–{seconds[1]:.2f}",
        f"{each / seconds[1]:,.0f}–{each / seconds[0]:,.0f}",
    ]


def _sent(plan: dict[str, Any], kind: str | None = None) -> float:
    return sum(one["sent"] for one in plan["collectives"] if kind in (None, one["kind"]))


def _mesh(plan: dict[str, Any]) -> str:
    return " × ".join(f"{axis} {size}" for axis, size in plan["mesh"].items() if size > 1)


def _memory(plan: dict[str, Any]) -> str:
    memory = plan["memory"]
    verdict = "" if memory["fits"] else ": does not fit"
    return f"{memory['total'] / GIB:.2f} of {memory['capacity'] / GIB:.2f}{verdict}"


def _times(plan: dict[str, Any]) -> list[str]:
    """Bytes sent, and the estimate from best to worst; dashes where there is no program."""
    estimate = plan["estimate"]
    if estimate is None:
        return ["–"] * 5
    best, worst = estimate["overlapped"], estimate["in_turn"]
    return [
        f"{_sent(plan) / GIB:.1f}",
        f"{best['seconds']:.2f}–{worst['seconds']:.2f}",
        f"{worst['tokens_a_second']:,.0f}–{best['tokens_a_second']:,.0f}",
        f"{worst['mfu']:.0%}–{best['mfu']:.0%}",
        f"{best['chip_hours']:.1f}–{worst['chip_hours']:.1f}",
    ]


def write(path: Path, name: str, text: str) -> None:
    """Put text between the marks of that name in a file, if it has them."""
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    before, found, rest = path.read_text().partition(start)
    if found:
        path.write_text(f"{before}{start}\n{text}\n{end}{rest.partition(end)[2]}")


def plot(file: Path) -> None:
    """Memory of a device and bytes it sends against devices, at the same rows a device."""
    ticks: set[int] = set()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for pair, (title, _) in PAIRS.items():
        plans = scaling(pair)
        chips = [plan["topology"]["chips"] for plan in plans]
        left.plot(chips, [plan["memory"]["total"] / GIB for plan in plans], "o-", label=title)
        right.plot(chips, [_sent(plan) / GIB for plan in plans], "o-", label=title)
        ticks.update(chips)
        capacity = plans[0]["memory"]["capacity"] / GIB
    left.axhline(capacity, color="black", linewidth=0.8, linestyle="--", label="HBM")
    left.set(ylabel="GiB of a device")
    right.set(ylabel="GiB a device sends in a step")
    for panel in (left, right):
        panel.set(xscale="log", xlabel=f"{SCALED} chips", ylim=(0, 1.1 * panel.get_ylim()[1]))
        panel.set_xticks(sorted(ticks), [str(count) for count in sorted(ticks)])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    left.legend()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Make what is missing, then write tables and plot."""
    if "--commands" in sys.argv:
        print("\n".join(case.command for case in (*CASES, *GPU_CASES)))
        return
    RESULTS.mkdir(exist_ok=True)
    for case in (*CASES, *GPU_CASES):
        if not case.plans() and "--render" not in sys.argv:
            print(case.command, flush=True)
            # Exit code 1 is a plan, too: of what does not fit.
            subprocess.run([sys.executable, *shlex.split(case.command)[1:]], cwd=ROOT, check=False)
    for file, plans, gpus in (
        (PAGE, page_tables(), page_gpu_tables()),
        (README, readme_table(), readme_gpu_table()),
    ):
        write(file, "plans", plans)
        write(file, "gpus", gpus)
    plot(PLOT)


if __name__ == "__main__":
    main()
