"""What a run tells of itself."""

import pytest

from adakd_jax.config import FileSource, HubSource, TfdsSource
from adakd_jax.training.describe import _source_text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (FileSource(path="a.jsonl"), "a.jsonl"),
        (FileSource(path=("a.jsonl", "b.jsonl")), "a.jsonl, b.jsonl"),
        (TfdsSource(name="sums"), "sums (split train)"),
        (HubSource(name="o/n", files="*.json"), "o/n (files *.json)"),
    ],
)
def test_where_rows_come_from(source, text):
    assert _source_text(source) == text
