"""The tables and the plot of docs/planning.md, from plans that this makes.

    python docs/planning.py            make the plans that are missing, then tables and plot
    python docs/planning.py --commands print the commands
    python docs/planning.py --render   tables and plot only

A plan is `python -m adakd_jax.plan … --json docs/planning/NAME.json`; delete a file to make it
again.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "planning"
PAGE, README = ROOT / "docs" / "planning.md", ROOT / "README.md"
GIB, MIB = 2**30, 2**20
# Dolly's rows as the alpaca template makes them: benchmarks/rows.py counts 156 tokens, 82 of them
# answers; databricks-dolly-15k has 15,011 rows.
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

    def plans(self) -> list[dict[str, Any]]:
        """What was found; nothing before it was made."""
        file = RESULTS / f"{self.name}.json"
        return json.loads(file.read_text()) if file.exists() else []


PAIRS = {
    "qwen2": ("Qwen2-7B → 1.5B", "configs/qwen2_7b_to_1.5b.yaml"),
    "openllama2": ("OpenLLaMA2-7B → 3B", "configs/openllama2_7b_to_3b.yaml"),
}
