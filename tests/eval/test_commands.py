"""The commands from flags to files, on a tiny exported model."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from adakd_jax.evaluate import main as evaluate
from adakd_jax.generate import main as generate
from adakd_jax.hf.export import save_pretrained
from tests.hf.tiny import make_pretrained, other_tokenizer

ROWS = [
    {"instruction": "Name a fruit", "output": ["a pear", "an apple"]},
    {"instruction": "Add", "input": "1 and 2", "output": "3"},
]
GENERATION = ["--generation.max_new_tokens", "6", "--generation.batch_size", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


@pytest.fixture(scope="module")
def model(folder, tiny_pretrained):
    return str(save_pretrained(tiny_pretrained, folder / "model"))


@pytest.fixture(scope="module")
def common(folder):
    return ["--template", "chat", "--cache_dir", str(folder / "cache"), *GENERATION]


@pytest.fixture
def to_file(folder, model, common, tmp_path):
    """Flags with which ``generate`` answers ROWS into a file of the test's own, and that file."""
    output = tmp_path / "answers.jsonl"
    flags = ["--model", model, "--prompts", str(folder / "rows.jsonl"), "--output", str(output)]
    return [*flags, *common], output


def test_generate_answers_a_file_and_continues_it(to_file, capsys):
    flags, output = to_file
    generate(flags)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["instruction"] for record in records] == ["Name a fruit", "Add"]
    assert records[1]["input"] == "1 and 2" and records[0]["input"] == ""
    assert all(record["output"] for record in records)
    assert "2 answers written" in capsys.readouterr().out
    before = output.read_text()
    generate(flags)
    assert output.read_text() == before
    assert "2 were there already" in capsys.readouterr().out


def test_generate_answers_one_text(model, common, to_file, capsys):
    flags, output = to_file
    generate(flags)
    first = json.loads(output.read_text().splitlines()[0])
    capsys.readouterr()
    generate(["--model", model, "--text", "Name a fruit", *common])
    assert capsys.readouterr().out == first["output"] + "\n"


def test_generate_falls_back_to_a_model_that_is_there(folder, model, common, capsys):
    flags = ["--model", "package:not_installed/m.gguf", "--text", "Name a fruit", *common]
    with pytest.raises(SystemExit) as stopped:
        generate(flags)
    assert stopped.value.code == 2 and "not_installed" in capsys.readouterr().err
    generate([*flags, "--fallback", model])
    assert capsys.readouterr().out


def test_evaluate_measures_two_models_against_a_teacher(
    folder, model, common, tiny_pretrained, capsys
):
    rng = np.random.default_rng(0)
    noisy = jax.tree.map(
        lambda leaf: leaf + 0.05 * rng.normal(size=leaf.shape).astype(np.float32),
        tiny_pretrained.params,
    )
    other = save_pretrained(dataclasses.replace(tiny_pretrained, params=noisy), folder / "other")
    output = folder / "new" / "evaluation"
    flags = ["--model", model, "--compare", str(other), "--teacher", model, *common]
    flags += ["--data", str(folder / "rows.jsonl"), "--output", str(output)]
    flags += ["--max_length", "64", "--max_prompt_length", "48", "--batch_rows", "1"]
    evaluate([*flags, "--show_examples", "1"])
    content = json.loads((output / "evaluation.json").read_text())
    sets = [measured["data"] for measured in content["models"].values()]
    same, changed = (each["metrics"] for each in sets)
    assert content["settings"]["generation"]["max_new_tokens"] == 6
    assert same["reverse_kl"] == 0.0 and same["top1_agreement"] == 1.0
    assert changed["reverse_kl"] > 0.0 and changed["nll_teacher"] == same["nll"]
    assert [len(each["answers"]) for each in sets] == [2, 2]
    gaps = {each["metric"]: each["gap"] for each in content["compared"]}
    assert gaps["nll"]["value"] == pytest.approx(same["nll"] - changed["nll"])
    assert gaps["reverse_kl"]["value"] == pytest.approx(-changed["reverse_kl"]) and len(gaps) == 7
    shown = capsys.readouterr().out
    for text in ("NLL", "ROUGE-L", "Name a fruit", "a pear", f"{same['nll']:.4f}"):
        assert text in shown
    assert "an apple" not in shown and "1 and 2" not in shown


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        (generate, ["--model", "m"], "exactly one of prompts and text, not neither"),
        (generate, ["--model", "m", "--prompts", "p.jsonl"], "output is absent"),
        (generate, ["--model", "m", "--prompts", "p.jsonl", "--output", "o"], "p.jsonl"),
        (evaluate, ["--model", "m"], "give suite, data or both"),
        (evaluate, ["--model", "m", "--suite", "dollly"], "dollly"),
        (evaluate, ["--model", "m", "--suite", "uinst_short"], "published nowhere"),
        (evaluate, ["--model", "m", "--data", "none.jsonl"], "none.jsonl"),
    ],
)
def test_mistakes_end_the_command_with_a_message(command, flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(flags)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def other_teacher(folder, tiny_pretrained):
    config = tiny_pretrained.source.hf_config
    return str(
        save_pretrained(make_pretrained(config, other_tokenizer()), folder / "other_teacher")
    )


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--step", "run folders only"),
        ("--teacher", "token ids differ, e.g. 259 is"),
        ("--max_length", "256 leaves no room"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    folder, model, other_teacher, common, flag, message, capsys
):
    value = {"--step": "best", "--teacher": other_teacher, "--max_length": "128"}[flag]
    with pytest.raises(SystemExit):
        evaluate(["--model", model, "--data", str(folder / "rows.jsonl"), flag, value, *common])
    assert message in capsys.readouterr().err
