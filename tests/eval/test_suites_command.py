"""Named suites from local files: the papers' settings, seeds, what is kept, what is refused."""

import json
import shutil

import numpy as np
import pytest
from etils import epath

from adakd_jax.compare import main as compare
from adakd_jax.config import Columns
from adakd_jax.config.evaluate import EvaluateCommand
from adakd_jax.config.suites import SUITES
from adakd_jax.eval import measured as measured_module
from adakd_jax.eval.evaluation_file import read_evaluation
from adakd_jax.eval.held_out_sets import open_sets
from adakd_jax.evaluate import main as evaluate
from adakd_jax.hf.export import save_pretrained

ROWS = {
    "dolly": [{"instruction": "Name a fruit", "output": "a pear", "topic": "x"}] * 2,
    "sinst": [{"instruction": "Add", "input": "1 and 2", "output": ["3", "three"]}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suites")
    for name, rows in ROWS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def flags(folder, tiny_pretrained):
    model = save_pretrained(tiny_pretrained, folder / "model")
    flags = f"--model {model} --suite dolly,sinst --data {folder} --cache_dir {folder}/cache"
    flags += " --template chat --max_length 64 --max_prompt_length 48 --batch_rows 1"
    return [*flags.split(), "--generation.max_new_tokens", "6", "--generation.batch_size", "2"]


@pytest.fixture(scope="module")
def first(folder, flags):
    """The folder after two seeds, and what its answers were."""
    output = folder / "out"
    evaluate([*flags, "--seeds", "10,20", "--output", str(output)])
    return output, {file: file.read_text() for file in output.rglob("seed*.jsonl")}


def test_every_suite_is_measured_with_every_seed(first):
    output, answers = first
    name, sets = read_evaluation(str(output))
    assert name.endswith("model") and list(sets) == ["dolly", "sinst"]
    assert [measured.title for measured in sets.values()] == ["DollyEval", "S-NI"]
    assert sorted(file.name for file in answers) == ["seed10.jsonl"] * 2 + ["seed20.jsonl"] * 2
    dolly = sets["dolly"]
    for name in ("rouge_l", "exact_match", "answer_tokens", "cut"):
        means = [np.mean(scores) for scores in dolly.scores[name].values()]
        assert dolly.metrics[name] == pytest.approx(np.mean(means))
        assert dolly.metrics[f"{name}_sd"] == pytest.approx(np.std(means, ddof=1))
    assert 1 <= dolly.metrics["answer_tokens"] <= 6
    # Seeds, and places within a set, are samples of their own.
    texts = {
        json.loads(line)["output"]
        for file, text in answers.items()
        if file.parent.name == "dolly"
        for line in text.splitlines()
    }
    assert len(texts) == 4
    written = (output / "evaluation.md").read_text()
    assert "## DollyEval" in written and "(2 sets)" in written and "mean confidence" in written
    settings = json.loads((output / "evaluation.json").read_text())["settings"]
    assert settings["seeds"] == [10, 20] and settings["generation"]["temperature"] == 1.0


def test_evaluations_of_two_days_are_compared(first, capsys):
    output = str(first[0])
    compare([output, output, "--resamples", "50"])
    shown = capsys.readouterr().out
    assert f"second: {read_evaluation(output)[0]}" in shown
    for text in ("DollyEval", "S-NI", "nll", "rouge_l", "+0.0000", "1.0000"):
        assert text in shown
    with pytest.raises(SystemExit) as stopped:
        compare([output, str(first[0].parent)])
    assert stopped.value.code == 2 and "no evaluation at" in capsys.readouterr().err


def test_what_was_sampled_is_not_sampled_again(first, flags, tmp_path):
    output = shutil.copytree(first[0], tmp_path / "out")
    answers = {file: file.read_text() for file in output.rglob("seed*.jsonl")}
    file = next(file for file in answers if file.match("dolly/seed10.jsonl"))
    # A mark that sampling would not make; and an interruption inside the second answer.
    marked = answers[file].splitlines()[0].replace('"output": "', '"output": "kept ')
    file.write_text(marked + "\n" + answers[file].splitlines()[1][:-9])
    evaluate([*flags, "--seeds", "10,20,30", "--output", str(output)])
    again = file.read_text().splitlines()
    assert again == [marked, answers[file].splitlines()[1]]
    assert all(other.read_text() == text for other, text in answers.items() if other != file)
    _, sets = read_evaluation(str(output))
    assert list(sets["dolly"].scores["rouge_l"]) == ["10", "20", "30"]
    assert sets["dolly"].answers[0]["answer"].startswith("kept ")


def test_an_interruption_leaves_the_sets_that_were_measured(flags, tmp_path, monkeypatch):
    whole = measured_module.measure

    def measure(*args, title, **kwargs):
        if title == "S-NI":
            raise KeyboardInterrupt
        return whole(*args, title=title, **kwargs)

    monkeypatch.setattr(measured_module, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        evaluate([*flags, "--generate_examples", "0", "--output", str(tmp_path)])
    assert list(read_evaluation(str(tmp_path))[1]) == ["dolly"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--generation.temperature", "0.5"], "temperature: 1.0 -> 0.5"),
        (["--max_prompt_length", "40"], "max_prompt_length: 48 -> 40"),
    ],
)
def test_answers_of_other_settings_are_refused(first, flags, change, message, capsys):
    with pytest.raises(SystemExit):
        evaluate([*flags, "--seeds", "10", "--output", str(first[0]), *change])
    assert message in capsys.readouterr().err


def test_answers_of_other_weights_are_refused(
    first, flags, tiny_pretrained, silent_pretrained, folder, capsys
):
    save_pretrained(silent_pretrained, folder / "model")
    try:
        with pytest.raises(SystemExit):
            evaluate([*flags, "--seeds", "10", "--output", str(first[0])])
    finally:
        save_pretrained(tiny_pretrained, folder / "model")
    assert "weights: " in capsys.readouterr().err


def test_suites_sample_as_the_papers_do_unless_told_otherwise():
    suite = EvaluateCommand.model_validate({"model": "m", "suite": ["vicuna"]})
    sampling = suite.sampling()
    assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens) == (1.0, 1.0, 256)
    assert suite.sampling_seeds() == (10, 20, 30, 40, 50)
    told = {"temperature": 0.0, "max_new_tokens": 8}
    other = EvaluateCommand.model_validate({"model": "m", "suite": ["vicuna"], "generation": told})
    assert (other.sampling().temperature, other.sampling().max_new_tokens) == (0.0, 8)
    plain = EvaluateCommand.model_validate({"model": "m", "data": "f.jsonl"})
    assert plain.sampling().temperature == 0.0 and plain.sampling_seeds() == (0,)


def test_a_suite_is_read_from_a_file_of_any_name_or_from_its_hub_set(folder, monkeypatch):
    common = {"columns": Columns(), "cache_dir": folder / "cache"}
    one = open_sets(["vicuna"], str(folder / "dolly.jsonl"), **common)
    assert one[0].title == "Vicuna" and len(one[0].rows) == 2
    asked = []

    def source_files(source):
        asked.append((source.kind, source.name, source.files))
        return [epath.Path(folder / "sinst.jsonl")]

    monkeypatch.setattr("adakd_jax.data.sources.source_files", source_files)
    open_sets(["dolly", "sinst"], None, **common)
    open_sets([], "hub:me/mine:test.jsonl", **common)
    hub = [("hub", SUITES[name].hub.name, SUITES[name].hub.files) for name in ("dolly", "sinst")]
    assert asked == [*hub, ("hub", "me/mine", "test.jsonl")]


@pytest.mark.parametrize(
    ("suites", "data", "message"),
    [
        (["dolly", "vicuna"], "{}", "has no vicuna.jsonl"),
        (["dolly", "vicuna"], "{}/dolly.jsonl", "one set of rows"),
        (["uinst_short"], None, "published nowhere"),
        ([], None, "nothing to evaluate on"),
    ],
)
def test_what_cannot_be_found_is_said(folder, suites, data, message):
    data = data and data.format(folder)
    with pytest.raises(ValueError, match=message):
        open_sets(suites, data, columns=Columns(), cache_dir=folder)
