"""The model card says what the hub and its readers need."""

import dataclasses

import pytest
import yaml

from adakd_jax.hf.card import CardFacts, MetricTable, model_card

FACTS = CardFacts(
    name="small-student",
    teacher="owner/teacher-135M",
    teacher_licence="apache-2.0",
    origin="The student started as layers 0 and 2 of the teacher.",
    method="Reverse KL on the hardest tokens.",
    data="200 prompts answered by the teacher.",
    command=["python", "-m", "adakd_jax.train", "--config", "my config.yaml"],
    parameters=81_413_568,
    metrics=MetricTable(
        columns=("teacher", "before", "after"), rows={"NLL": (2.6612, 5.791, None)}
    ),
    versions={"jax": "0.10.2"},
)


def front_matter(card: str) -> dict:
    start, front, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front)


def test_front_matter():
    front = front_matter(model_card(FACTS))
    assert front["base_model"] == "owner/teacher-135M"
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "transformers"
    assert {"adakd", "knowledge-distillation", "jax"} <= set(front["tags"])


def test_body_carries_every_fact():
    card = model_card(FACTS)
    for text in (FACTS.origin, FACTS.method, FACTS.data, "81,413,568 parameters", "jax 0.10.2"):
        assert text in card
    assert "python -m adakd_jax.train --config 'my config.yaml'" in card
    assert "| NLL | 2.661 | 5.791 | – |" in card
    assert "That of the teacher: apache-2.0" in card


@pytest.mark.parametrize("teacher", ["/models/teacher", "package:pkg/file.gguf", "local.gguf"])
def test_only_a_hub_id_is_a_base_model(teacher):
    card = model_card(dataclasses.replace(FACTS, teacher=teacher))
    assert "base_model" not in front_matter(card)
    assert f"`{teacher}`" in card


def test_unknown_licence_and_missing_numbers_are_said_plainly():
    card = model_card(dataclasses.replace(FACTS, teacher_licence=None, metrics=None, versions={}))
    assert front_matter(card)["license"] == "unknown"
    assert "do not state its licence" in card
    assert "## Evaluation" not in card and "Versions" not in card


def test_ragged_table_is_refused():
    with pytest.raises(ValueError, match="KL: need 2 values"):
        MetricTable(columns=("a", "b"), rows={"NLL": (1.0, 2.0), "KL": (1.0,)})


@pytest.mark.parametrize(
    ("base", "line"),
    [
        ("acme/base", 'model = AutoModelForCausalLM.from_pretrained("acme/base")'),
        (
            "package:tiny/x.gguf",
            'adakd_jax.save_pretrained(adakd_jax.load_pretrained("package:tiny/x.gguf"), "base")',
        ),
    ],
)
def test_the_card_of_an_adapter_says_what_it_belongs_to_and_how_to_load_both(base, line):
    card = model_card(dataclasses.replace(FACTS, base=base))
    code = card.partition("```python\n")[2].partition("```")[0]
    compile(code, "card", "exec")
    assert line in code.splitlines()
    assert "library_name: peft" in card and ("base_model: acme/base" in card) == (":" not in base)
    assert f"A low-rank adapter (LoRA) of [{base}]" in card or f"(LoRA) of `{base}`" in card


def test_several_licences_are_a_list_on_the_hub():
    card = model_card(dataclasses.replace(FACTS, teacher_licence="apache-2.0, mit"))
    assert front_matter(card)["license"] == ["apache-2.0", "mit"]
    assert "That of the teacher: apache-2.0, mit." in card
