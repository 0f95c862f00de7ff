"""Whether two runs are one: all that they recorded and what they exported, bit for bit."""

import hashlib
import json
from pathlib import Path
from typing import Any

# What the machine says, not the run: time and memory.
_TIMED = (
    "seconds",
    "tokens_per_second",
    "response_tokens_per_second",
    "host_peak_gib",
    "device_peak_gib",
    "generating_seconds",
    "generating_share",
)


def outcome(run_dir: Path) -> dict[str, Any]:
    """What a finished run has to show: records without time and memory, digests of files."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        for name in _TIMED:
            record.pop(name, None)
    files = ("export/model.safetensors", "evaluation/after.json")
    return {"records": records} | {
        file: hashlib.sha256((run_dir / file).read_bytes()).hexdigest() for file in files
    }


def difference(reference: Path, other: Path) -> str | None:
    """Where a finished run differs from another, in a line; None if nowhere."""
    if not (other / "export").exists():
        return "no export"
    expected, found = outcome(reference), outcome(other)
    pairs = zip(expected["records"], found["records"], strict=False)
    for one, two in pairs:
        if one != two:
            return f"records of step {one['step']} and {two['step']} differ: {one} and {two}"
    if len(expected["records"]) != len(found["records"]):
        return f"{len(found['records'])} records, not {len(expected['records'])}"
    differing = [name for name in expected if expected[name] != found[name]]
    if differing:
        return f"{', '.join(differing)} differ"
    left = [*other.glob("checkpoints/*tmp*"), *other.glob(".export*")]
    return f"left behind: {', '.join(path.name for path in left)}" if left else None
