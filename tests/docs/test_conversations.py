"""The example of docs/conversations.md gives what the page says."""

import json
import re
from pathlib import Path

import pytest

from adakd_jax.config.data import Columns
from adakd_jax.data.rows import normalize_row
from adakd_jax.data.templates import Part, make_template
from adakd_jax.data.tokenize import Encoder
from tests.data.conftest import make_tokenizer

PAGE = (Path(__file__).parents[2] / "docs" / "conversations.md").read_text()


def block(kind: str) -> str:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[0]


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = make_tokenizer(block("jinja"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


@pytest.fixture(scope="module")
def rows():
    lines = map(json.loads, block("json").splitlines())
    return [normalize_row(line, Columns(), origin="page") for line in lines]


def test_what_the_page_says_is_learned(tokenizer, rows):
    template = make_template("chat", tokenizer)
    learned = [
        segment.text.replace("\n", "\\n")
        for row in rows
        for segment in template.example(row).segments
        if segment.part == Part.ANSWER
    ]
    assert learned == block("text").splitlines()


def test_prompts_are_those_of_training(tokenizer, rows):
    encoder = Encoder("chat", tokenizer, 900, 1000)
    for row in rows:
        prompt, example = encoder.prompt(row).tokens.tolist(), encoder.example(row)
        assert example.tokens[: len(prompt)].tolist() == prompt
        assert example.targets[len(prompt) :].all()
