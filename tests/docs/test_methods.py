"""The page of methods: its YAML is valid, it leaves no rule out, its numbers are the studies'."""

import csv
import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from adakd_jax.config import DistillConfig
from adakd_jax.config.policy import Policy
from adakd_jax.distill import DIVERGENCES, SCORES
from adakd_jax.distill.focus import FOCI
from adakd_jax.distill.temperature import TEMPERATURES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "methods.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
SECTIONS = re.split(r"^##+ ", PAGE, flags=re.M)[1:]


@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0] for block in BLOCKS])
def test_its_yaml_is_valid(block):
    if block.startswith("policy:"):
        for line in block.splitlines():
            TypeAdapter(Policy).validate_python(yaml.safe_load(line)["policy"])
    else:
        DistillConfig.model_validate(yaml.safe_load(block))


@pytest.mark.parametrize("rule", sorted({*SCORES, *FOCI, *TEMPERATURES, *DIVERGENCES}))
def test_it_leaves_no_rule_out(rule):
    assert re.search(rf"`{rule}`|kind: {rule}\b|\bor {rule}\b", PAGE)


@pytest.mark.parametrize("section", SECTIONS, ids=[part.splitlines()[0] for part in SECTIONS])
def test_every_method_says_when_what_it_costs_and_what_it_did(section):
    if "```yaml" in section:
        assert "**When**" in section and "**Cost**" in section and "**In the studies**" in section


def glance():
    """The rows of "At a glance", by method."""
    table = next(part for part in SECTIONS if part.startswith("At a glance"))
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| [")]
    return {re.sub(r"\[(.*)\]\(.*\)", r"\1", row[0]): row[1:] for row in rows}


def measured(study):
    with (DOCS / "studies" / study / "methods.csv").open() as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_its_costs_are_those_that_were_measured():
    rows = glance()
    assert rows.keys() == measured("overhead").keys()
    for method, line in measured("overhead").items():
        expected = [f"{float(line[key]):.2f}" for key in ("ratio", "temporaries_ratio")]
        assert rows[method][:2] == expected, method


def test_its_links_lead_to_sections():
    titles = [part.splitlines()[0].lower() for part in SECTIONS]
    anchors = {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= anchors
