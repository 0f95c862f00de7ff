"""The table of docs/models.md is the registry."""

import re
from pathlib import Path

from adakd_jax.hf.multimodal import MULTIMODAL
from adakd_jax.models import FAMILIES

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \|.*\| (?:`([\w-]+)`.*|–) \|$", re.MULTILINE)
# Files of these are read as another family.
SHARED = {"granitemoehybrid": "granite"}


def test_every_family_has_a_row_with_its_name_in_llama_cpp():
    rows = {name: gguf or None for name, gguf in ROW.findall(PAGE)}
    assert list(rows) == sorted(FAMILIES)
    for name, family in FAMILIES.items():
        own = family.gguf and family.gguf.architecture
        assert rows[name] == (own or SHARED.get(name)), name


def test_every_multimodal_kind_is_named():
    kinds = re.search(r"\*\*Multimodal folders\*\* \((.*?)\)", PAGE)
    assert kinds and re.findall(r"`(\w+)`", kinds[1]) == list(MULTIMODAL)
