"""Plans as tables for people and as JSON for machines."""

import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from adakd_jax.config.plan import PlanConfig
from adakd_jax.console import Console
from adakd_jax.planning.advice import SHARES, advice
from adakd_jax.planning.collectives import Collective
from adakd_jax.planning.compile import Plan
from adakd_jax.planning.gpu_targets import FRACTION_VARIABLES
from adakd_jax.planning.hardware import Topology
from adakd_jax.planning.memory import gib
from adakd_jax.planning.roofline import Speed, speed
from adakd_jax.user_path import user_path

MIB = 2**20


def speeds(plan: Plan) -> tuple[Speed, Speed] | None:
    """If all parts of a chip work at once, and if they take turns; None without a data sheet."""
    chip = plan.topology.chip
    if plan.roofline is None or chip is None:
        return None
    best, worst = (
        speed(seconds, plan.tokens, plan.operations, chip, plan.topology.chips, plan.steps)
        for seconds in (plan.roofline.overlapped, plan.roofline.in_turn)
    )
    return best, worst


def print_plan(console: Console, config: PlanConfig, plan: Plan) -> None:
    """Everything about one topology."""
    console.rule(Text(plan.topology.title, "bold"))
    for who, words in plan.models.items():
        console.print(f"{who}  {words}")
    console.print("mesh     " + ", ".join(f"{axis} {size}" for axis, size in plan.mesh.items()))
    micro, rows = plan.layout
    at_most = " at most" if _is_bound(config) else ""
    console.print(
        f"step     {micro} × {rows} rows of {plan.length} tokens{at_most}, "
        f"{plan.rows_per_device} a device at a time; remat {plan.remat}"
    )
    attention = ", ".join(f"{who} {name}" for who, name in plan.attention.items())
    console.print(f"compiled in {plan.compile_seconds:.0f} s; attention: {attention}")
    _print_memory(console, plan)
    for line in advice(config, plan):
        console.print(line)
    _print_work(console, config, plan)
    _print_speed(console, config, plan)


def _is_bound(config: PlanConfig) -> bool:
    packed = config.training.batch_examples is not None and config.rows_per_device is None
    return packed and config.tokens_per_example is None


def _print_memory(console: Console, plan: Plan) -> None:
    memory = plan.memory
    table = Table(title="memory of a device", title_justify="left")
    table.add_column("")
    table.add_column("GiB", justify="right")
    for name, size in memory.parts.items():
        table.add_row(name, gib(size))
    table.add_row("total", gib(memory.total), style="bold")
    if memory.capacity is not None:
        gpu = plan.topology.gpu
        table.add_row("there is" if gpu is None else "JAX may take", gib(memory.capacity))
    console.print(table)
    _print_share(console, plan)
    if memory.capacity is None and memory.fits:
        console.print("compiles; how much memory there is, is not known")
        return
    verdict = ("fits", "bold green") if memory.fits else ("does not fit", "bold red")
    capacity = "" if memory.capacity is None else f" of {gib(memory.capacity)}"
    console.print(Text.assemble(verdict, f": {gib(memory.total)}{capacity} GiB"))
    if plan.most_rows is not None:
        console.print(f"room for {plan.most_rows} rows a device at a time")


def _print_share(console: Console, plan: Plan) -> None:
    """What of a GPU's memory a process may use."""
    gpu, capacity = plan.topology.gpu, plan.memory.capacity
    if gpu is None or capacity is None:
        return
    share, variable = capacity / gpu.memory, FRACTION_VARIABLES[0]
    more = f"; more of it: {variable}=.9 in the environment of plan and run"
    more = more if share < SHARES[0] else ""
    console.print(f"JAX takes {share:.0%} of the GPU's {gib(gpu.memory)} GiB{more}")


def _print_work(console: Console, config: PlanConfig, plan: Plan) -> None:
    devices = 1
    for size in plan.mesh.values():
        devices *= size
    console.print(
        f"a step computes {plan.operations.executed / 1e12:,.2f} TFLOP, "
        f"{plan.operations.executed / devices / 1e12:,.3f} a device; "
        f"{plan.operations.needed / 1e12:,.2f} without what is computed again "
        f"(counted; {config.response_share:.0%} of the tokens are answers)"
    )
    if plan.moved is None or plan.collectives is None:
        return
    if plan.compiled_operations is not None:
        console.print(
            f"the program's own products: {plan.compiled_operations / 1e12:,.3f} TFLOP a device"
        )
    console.print(f"a device moves {gib(plan.moved)} GiB to and from its memory")
    table = Table(title="collectives of a step, of a device", title_justify="left")
    for name in ("", "over", "devices", "number", "puts in MiB", "sends MiB", "by"):
        table.add_column(name, justify="left" if name in ("", "over", "by") else "right")
    for one in plan.collectives:
        table.add_row(
            one.kind,
            " × ".join(one.axes),
            str(one.group),
            f"{one.count:,.0f}",
            f"{one.size / MIB:,.1f}",
            f"{one.sent / MIB:,.1f}",
            _carrier(plan, one),
        )
    if plan.collectives:
        console.print(table)


def _carrier(plan: Plan, one: Collective) -> str:
    """What carries a collective."""
    gpu = plan.topology.gpu
    near = f"{one.links} link{'s' * (one.links > 1)}" if gpu is None else gpu.link
    if one.network == 0.0:
        return near
    return "network" if one.network == one.sent else f"{near}, network"


def _print_speed(console: Console, config: PlanConfig, plan: Plan) -> None:
    both = speeds(plan)
    if both is None or plan.roofline is None:
        if plan.memory.fits:
            console.print(f"no data sheet of {plan.topology.kind}: no estimate of its speed")
        return
    table = Table(
        title=f"estimate by the {plan.topology.unit}'s data sheet (a roofline, not a measurement)",
        title_justify="left",
    )
    table.add_column("")
    for name in ("everything at once", "one after the other"):
        table.add_column(name, justify="right")
    for name, cells in _speed_rows(both, plan.topology.unit):
        table.add_row(name, *cells)
    console.print(table)
    busy = ", ".join(f"{name} {1e3 * time:,.1f}" for name, time in plan.roofline._asdict().items())
    console.print(f"ms a step: {busy}; bound by {plan.roofline.bound}")
    if plan.topology.gpu is not None:
        console.print(
            "memory and collectives are the compiler's; a run tunes its kernels on the GPU, which "
            "is not there: seconds are by data sheet"
        )
    if plan.steps is None:
        console.print(
            f"days: training.epochs {config.training.epochs:g} of how many examples? "
            "Give --examples"
        )


def _speed_rows(both: tuple[Speed, Speed], unit: str) -> list[tuple[str, list[str]]]:
    rows = [
        ("seconds a step", [f"{one.seconds:,.3f}" for one in both]),
        ("tokens a second", [f"{one.tokens_a_second:,.0f}" for one in both]),
        ("MFU", [f"{one.mfu:.0%}" for one in both]),
    ]
    if both[0].days is not None:
        rows.append(("days", [f"{one.days:,.3f}" for one in both]))
        rows.append((f"{unit}-hours", [f"{one.chip_hours:,.1f}" for one in both]))
    return rows


def print_summary(console: Console, plans: Sequence[Plan]) -> None:
    """One row a topology."""
    table = Table(title="all topologies (times are estimates: everything at once – in turn)")
    table.title_justify = "left"
    units = {plan.topology.unit for plan in plans}
    for name in SUMMARY:
        name = "GPU-hours" if name == "chip-hours" and units == {"GPU"} else name
        table.add_column(name, justify="left" if name in ("topology", "mesh") else "right")
    for plan in plans:
        table.add_row(*summary_row(plan))
    console.print(table)


SUMMARY = (
    *("topology", "mesh", "rows a device", "remat", "GiB", "of", "fits"),
    *("s a step", "tokens/s", "MFU", "chip-hours"),
)


def summary_row(plan: Plan) -> list[str]:
    """A plan in the columns of `SUMMARY`."""
    memory, both = plan.memory, speeds(plan)
    mesh = " × ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1)
    times = ["–"] * 4
    if both is not None:
        best, worst = both
        times = [
            f"{best.seconds:,.2f}–{worst.seconds:,.2f}",
            f"{_short(worst.tokens_a_second)}–{_short(best.tokens_a_second)}",
            f"{worst.mfu:.0%}–{best.mfu:.0%}",
            "–"
            if best.chip_hours is None or worst.chip_hours is None
            else f"{best.chip_hours:,.1f}–{worst.chip_hours:,.1f}",
        ]
    capacity = "?" if memory.capacity is None else gib(memory.capacity)
    fits = "yes" if memory.fits else "no"
    rows = str(plan.rows_per_device)
    micro = f"{plan.layout[0]} × {rows}" if plan.layout[0] > 1 else rows
    name, slices = plan.topology.name, plan.topology.slices
    place = f"{slices} × {name}" if slices > 1 else name
    return [place, mesh, micro, plan.remat, gib(memory.total), capacity, fits, *times]


def _short(number: float) -> str:
    return f"{number:,.0f}" if number < 10_000 else f"{number / 1_000:,.0f}k"


def as_json(config: PlanConfig, plan: Plan) -> dict[str, Any]:
    """A plan for machines; bytes, seconds and operations."""
    both = speeds(plan)
    return {
        "topology": _place(plan.topology),
        "models": plan.models,
        "attention": plan.attention,
        "mesh": plan.mesh,
        "micro_batches": plan.layout[0],
        "rows": plan.layout[1],
        "rows_per_device": plan.rows_per_device,
        "length": plan.length,
        "most_rows_per_device": plan.most_rows,
        "remat": plan.remat,
        "steps": plan.steps,
        "memory": {
            "parts": dict(plan.memory.parts),
            "total": plan.memory.total,
            "capacity": plan.memory.capacity,
            "fits": plan.memory.fits,
            "largest": [one._asdict() for one in plan.memory.largest],
        },
        "advice": advice(config, plan),
        "operations": plan.operations._asdict(),
        "compiled_operations": plan.compiled_operations,
        "response_share": config.response_share,
        "bytes_moved": plan.moved,
        "collectives": plan.collectives and [one._asdict() for one in plan.collectives],
        "estimate": None
        if both is None or plan.roofline is None
        else {
            "parts": plan.roofline._asdict(),
            "overlapped": both[0]._asdict(),
            "in_turn": both[1]._asdict(),
        },
        "compile_seconds": plan.compile_seconds,
    }


def _place(topology: Topology) -> dict[str, Any]:
    return {
        "name": topology.name,
        "slices": topology.slices,
        "chips": topology.chips,
        "chip": None if topology.chip is None else topology.chip._asdict(),
        "gpu": None if topology.gpu is None else topology.gpu._asdict(),
    }


def write_json(found: Sequence[tuple[PlanConfig, Plan]], file: str) -> None:
    """Write plans and what they were made for to a file, local or gs://."""
    path = user_path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([as_json(*one) for one in found], indent=1) + "\n")
