import json

import pytest

from adakd_jax.config import Columns, FileSource, GenerationConfig
from adakd_jax.data.sources import open_rows
from adakd_jax.eval.suite import evaluate, hold_ready

GENERATION = GenerationConfig(max_new_tokens=6, batch_size=4)
TURNS = [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "Yes"}]
ROWS = [
    {"instruction": "Name a fruit", "output": ["a pear", "an apple"]},
    {"instruction": "Add", "input": "1 and 2", "output": "3"},
    {"messages": TURNS},
    {"messages": [*TURNS, {"role": "user", "content": "And snow?"}]},
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    file = folder / "held_out.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return open_rows(FileSource(path=str(file)), columns=Columns(), cache_dir=folder)


@pytest.fixture(scope="module")
def ready(rows, tiny_pretrained, tmp_path_factory):
    def make(**options):
        return hold_ready(
            rows,
            tiny_pretrained.tokenizer,
            template="chat",
            max_length=96,
            max_prompt_length=64,
            batch_rows=2,
            cache_dir=tmp_path_factory.getbasetemp() / "prepared",
            **options,
        )

    return make


def test_questions_are_what_was_asked_with_all_references(ready):
    held_out = ready()
    assert [question.text for question in held_out.questions] == [
        "Name a fruit",
        "Add\n\n1 and 2",
        "Rain?",
    ]
    assert held_out.questions[0].references == ("a pear", "an apple")
    assert held_out.questions[2].references == ("Yes",)
    assert held_out.left_out == {"no answer to compare with": 1}
    tokens = sum((batch.segments > 0).sum() for batch in held_out.batches)
    assert tokens > sum(len(question.tokens) for question in held_out.questions)


def test_limits_on_examples_and_questions(ready):
    assert len(ready(max_examples=2).questions) == 2
    limited = ready(max_examples=2, generate_examples=1)
    assert [question.text for question in limited.questions] == ["Name a fruit"]
    assert ready(generate_examples=0).questions == ()


def test_an_evaluation_measures_and_answers(ready, tiny_pretrained):
    held_out = ready()
    evaluation = evaluate(tiny_pretrained, held_out, GENERATION, teacher=tiny_pretrained)
    assert evaluation.likelihood.reverse_kl == 0.0
    assert [each.question for each in evaluation.answers] == list(held_out.questions)
    values = json.loads(json.dumps(evaluation.to_dict()))
    assert values["top1_agreement"] == 1.0
    assert values["rouge_l_low"] <= values["rouge_l"] <= values["rouge_l_high"]
    mean = sum(answer["rouge_l"] for answer in values["answers"]) / 3
    assert values["rouge_l"] == pytest.approx(mean)
    assert values["answers"][0]["references"] == ["a pear", "an apple"]


def test_given_parameters_are_measured_instead_of_the_models_own(
    ready, tiny_pretrained, silent_pretrained
):
    held_out = ready()
    own = evaluate(silent_pretrained, held_out, GENERATION, answer=False)
    given = evaluate(
        tiny_pretrained, held_out, GENERATION, params=silent_pretrained.params, answer=False
    )
    assert given == own and own.rouge is None and own.answers == ()
    assert "rouge_l" not in own.metrics()
