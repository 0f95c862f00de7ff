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
SECTIONS = {part.splitlines()[0]: part for part in re.split(r"^##+ ", PAGE, flags=re.M)[1:]}
METHODS = [title for title, section in SECTIONS.items() if "```yaml" in section]
# Differences that the page shows: column of the study, factor, decimals.
SHOWN = (("forward_kl", 1, 2), ("reverse_kl", 1, 2), ("top1_agreement", 100, 1))


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


@pytest.mark.parametrize("title", METHODS)
def test_every_method_says_when_what_it_costs_and_what_it_did(title):
    told = re.findall(r"^- \*\*(.*?)\*\*: \S", SECTIONS[title], re.M)
    assert told == ["When", "Cost", "In the studies"]


def rows_of(title):
    """The rows of a section's table by their first cell, without links and intervals."""
    lines = [line for line in SECTIONS[title].splitlines() if line.startswith("| ")]
    rows = [re.sub(r"\[(.*?)\]\(.*?\)", r"\1", line).strip("| ").split(" | ") for line in lines[1:]]
    return {row[0]: row[1:] for row in rows}


def measured(study):
    with (DOCS / "studies" / study / "methods.csv").open() as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def difference(line, column, factor, decimals):
    """The difference and its interval as text, and the verdict."""
    value, low, high = (
        f"{factor * float(line[f'{column}_{part}']):+.{decimals}f}".replace("-", "−")
        for part in ("difference", "low", "high")
    )
    return value, f"[{low}, {high}]", line[f"{column}_verdict"]


def test_its_costs_are_those_that_were_measured():
    rows = rows_of("At a glance")
    assert rows.keys() == measured("overhead").keys()
    for method, line in measured("overhead").items():
        expected = [f"{float(line[key]):.2f}" for key in ("ratio", "temporaries_ratio")]
        assert rows[method][:2] == expected, method


def test_its_distances_at_a_glance_are_the_studies():
    lines = {
        **measured("baselines"),
        "RKD + IDTS": measured("ablation")["RKD + IDTS"],
        "AdaKD, r = 1": measured("ablation")["AdaKD"],
        "AdaKD, r = 0.75": measured("ablation")["AdaKD, fixed r = 0.75"],
    }
    told = {method: row[2:] for method, row in rows_of("At a glance").items() if "–" not in row}
    assert told.pop("RKD") == ["0", "0", "0"] and len(told) == 8
    for method, cells in told.items():
        assert lines[method]["compared_with"] == "RKD"
        for cell, column in zip(cells, SHOWN, strict=True):
            value, _, verdict = difference(lines[method], *column)
            assert cell == (value if verdict == "unresolved" else f"**{value}**"), method


@pytest.mark.parametrize(
    ("title", "study"),
    [
        ("Parts of AdaKD", "ablation"),
        ("AdaKD's numbers", "sensitivity"),
        ("Divergences, with and without AdaKD, fine-tuning, EGAD", "baselines"),
    ],
)
def test_its_tables_are_the_studies(title, study):
    lines = [line for line in measured(study).values() if line["compared_with"]]
    columns = (*SHOWN, ("rouge_l", 100, 1))
    for line, (method, cells) in zip(lines, rows_of(title).items(), strict=True):
        if study == "baselines":
            assert [method, cells.pop(0)] == [line["method"], line["compared_with"]]
        for cell, column in zip(cells, columns, strict=False):  # one table has no ROUGE-L
            value, interval, verdict = difference(line, *column)
            assert cell.startswith(value) and verdict in cell, (method, column)
            assert interval in cell or "[" not in cell, (method, column)


def test_its_links_lead_to_sections():
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in SECTIONS}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= anchors
