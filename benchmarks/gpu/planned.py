"""What `adakd_jax.plan` says of a step, against what was measured of it."""

import re
from collections.abc import Iterator

import jax

from adakd_jax.planning.compile import Plan, plan_for
from adakd_jax.planning.hardware import TopologyError, read_topology
from benchmarks.cases import Setting
from benchmarks.gpu.device import GIB
from benchmarks.gpu.options import Options, Row, attempt
from benchmarks.gpu.pairs import qwen2_pair, smollm2_pair
from benchmarks.run_step import run_settings

MEMORY_LIMIT = 0.10
MEASURED = re.compile(
    r"(?P<pair>SmolLM2|Qwen2, LoRA), (?P<rows>\d+) × (?P<length>\d+), AdaKD r = 1"
)
TOPOLOGIES = {
    "H100": "h100:1", "H200": "h200:1", "B200": "b200:1", "L40S": "l40s:1",
    "A100.*80": "a100-80g:1", "A100.*40": "a100-40g:1",
}  # fmt: skip


def topology_of(device_kind: str) -> str | None:
    """How a plan calls one device of a kind; None if it has no name for it."""
    if device_kind == "cpu":
        return "cpu:1"
    found = [name for words, name in TOPOLOGIES.items() if re.search(words, device_kind)]
    return found[0] if found else None


def plan(options: Options) -> Iterator[Row]:
    """One measured step of each pair: memory within 10%, and by how much the roofline is off."""
    jax.config.update("jax_platforms", "cpu")  # compiled for the device, which is not touched
    kinds = [row["device"] for row in options.rows_of("product") if row["what"] == "device"]
    topology = topology_of(kinds[0]) if kinds else None
    if topology is None:
        yield {"what": "plan", "error": f"no topology for {kinds or 'a device not looked at yet'}"}
        return
    seen: set[str] = set()
    for row in [*options.rows_of("steps"), *options.rows_of("large")]:
        found = MEASURED.fullmatch(row["what"])
        if found is None or found["pair"] in seen or "error" in row:
            continue
        seen.add(found["pair"])
        small = options.small
        pair = smollm2_pair(small) if found["pair"] == "SmolLM2" else qwen2_pair(small, lora=True)
        size = int(found["rows"]), int(found["length"])
        yield attempt(
            f"plan, {row['what']}, {topology}",
            lambda r=row, p=pair, s=size: _compared(p, s, topology, r),
        )
    if not seen:
        yield {"what": "plan", "error": "no step was measured: parts `steps` and `large`"}


def _compared(pair: Setting, size: tuple[int, int], topology: str, row: Row) -> Row:
    config = run_settings(pair, "adakd", *size, topology)
    try:
        plan = plan_for(config, read_topology(topology))
    except TopologyError as error:
        return {"error": f"not available: {str(error).splitlines()[0]}"}
    # On a CPU nothing tells the memory that was held: the compiler's word for the program that ran.
    measured = row.get("peak_gib", row["program_gib"])
    total = plan.memory.total / GIB
    found: Row = {"planned_gib": total, "measured_gib": measured, "over": total / measured - 1.0}
    found |= _roofline(plan, row["seconds"])
    return found | {"passed": abs(found["over"]) <= MEMORY_LIMIT}


def _roofline(plan: Plan, seconds: float) -> Row:
    if plan.roofline is None:
        return {"roofline": "no data sheet", "seconds": seconds}
    estimate = plan.roofline.in_turn
    return {
        "roofline_seconds": estimate,
        "seconds": seconds,
        "seconds_over": estimate / seconds - 1,
    }
