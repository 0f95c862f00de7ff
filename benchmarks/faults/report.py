"""The reliability table, as Markdown."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults.kills import PHASES, SIGNALS
from benchmarks.suite import ROOT

MARKS = "<!-- faults: start -->", "<!-- faults: end -->"
README = ROOT / "README.md"


def table(results: dict[str, Any]) -> str:
    """Kills by phase and signal, then a line on each other fault."""
    return "\n".join([*_kills(results), "", *_others(results)])


def write_into_readme(text: str, readme: Path = README) -> bool:
    """Replaces what stands between the marks; False if they are not there."""
    content = readme.read_text()
    if not all(mark in content for mark in MARKS):
        return False
    before, _, rest = content.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    readme.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")
    return True


def kept(results: dict[str, Any]) -> bool:
    """Whether every promise was kept."""
    runs = all(run["difference"] is None for run in results["runs"])
    kills = all(kill["expected"] for run in results["runs"] for kill in run["kills"])
    return runs and kills and all(other["problem"] is None for other in results["others"])


def hits(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The kills that met a running process."""
    return [kill for run in results["runs"] for kill in run["kills"] if kill["hit"]]


def _kills(results: dict[str, Any]) -> Iterator[str]:
    runs, met = results["runs"], hits(results)
    counts = Counter((kill["signal"], kill["phase"]) for kill in met)
    same = sum(run["difference"] is None for run in runs)
    yield f"| killed at a random moment of | {' | '.join(PHASES)} | all |"
    yield "|---|" + "--:|" * (len(PHASES) + 1)
    for number in SIGNALS:
        row = [counts[number.name, phase] for phase in PHASES]
        yield f"| {number.name} | {' | '.join(map(str, row))} | {sum(row)} |"
    yield ""
    slowest = max((k["seconds_to_end"] for k in met if k["signal"] == "SIGTERM"), default=0.0)
    policies = Counter(run["policy"] for run in runs)
    told = ", ".join(f"{count} {policy}" for policy, count in policies.items())
    yield (
        f"{len(met)} kills of {len(runs)} runs ({told}); {same} of {len(runs)} ended with all "
        "losses, held-out measurements and exported weights bit for bit those of the run that "
        f"was left alone. After SIGTERM a process was gone within {slowest:.1f} s."
    )


def _others(results: dict[str, Any]) -> Iterator[str]:
    yield "| fault | what happens | exit code | kept |"
    yield "|---|---|--:|---|"
    for other in results["others"]:
        how = f" ({other['how']})" if other["how"] else ""
        code = "–" if other["code"] is None else other["code"]
        verdict = "yes" if other["problem"] is None else f"no: {other['problem']}"
        yield f"| {other['fault']}{how} | {other['promise']} | {code} | {verdict} |"
