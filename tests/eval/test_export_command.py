"""From a run folder to an exported student, and to its evaluation."""

import json

import jax
import numpy as np
import optax
import pytest

from adakd_jax.config import (
    DataConfig,
    FileSource,
    RunConfig,
    StudentLayers,
    TeacherConfig,
    TrainingConfig,
)
from adakd_jax.config.chat import ChatConfig
from adakd_jax.config.provenance import write_provenance
from adakd_jax.eval.model import open_model, prompt_settings
from adakd_jax.export import main as export
from adakd_jax.hf.load import load_pretrained
from adakd_jax.training.checkpoint import Checkpoints
from adakd_jax.training.describe import Story, write_story
from adakd_jax.training.saved_student import describe_student
from adakd_jax.training.state import init_state


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, tiny_pretrained):
    """A run with checkpoints of steps 1 (the best) and 2."""
    folder = str(tmp_path_factory.mktemp("run") / "run")
    config = RunConfig(
        run_dir=folder,
        data=DataConfig(train=FileSource(path="rows.jsonl"), template="chat", max_length=300),
        teacher=TeacherConfig(path="acme/teacher"),
        student=StudentLayers(layers=(0, 1)),
        training=TrainingConfig(steps=2, batch_rows=1),
    )
    write_provenance(folder, config, ["python", "-m", "adakd_jax.train", "--config", "a b.yaml"])
    describe_student(folder, tiny_pretrained)
    told = {"origin": "From a pebble.", "method": "By hellinger.", "data": "Few rows."}
    write_story(folder, Story("acme/teacher", "mit", steps_per_epoch=4, **told))
    state = init_state(tiny_pretrained.params, optax.sgd(0.1), seed=0)
    changed = jax.tree.map(lambda leaf: leaf + 1.0, state.params)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state._replace(step=np.int32(1)), held_out_loss=0.5)
        checkpoints.save(state._replace(step=np.int32(2), params=changed), held_out_loss=0.7)
    return folder


@pytest.mark.parametrize(("step", "added"), [(None, 1.0), ("best", 0.0), ("1", 0.0)])
def test_a_checkpoint_becomes_a_folder_that_loads(
    run_dir, tiny_pretrained, tmp_path, step, added, capsys
):
    target = tmp_path / "exported"
    export([run_dir, str(target), *([] if step is None else ["--step", step])])
    assert str(target) in capsys.readouterr().out
    loaded = load_pretrained(target)
    jax.tree.map(
        lambda new, old: np.testing.assert_array_equal(new, old + added),
        loaded.params,
        tiny_pretrained.params,
    )
    assert loaded.tokenizer is not None and loaded.source.licence == "mit"
    card = (target / "README.md").read_text()
    assert "acme/teacher" in card and "'a b.yaml'" in card and "hellinger" in card
    steps, passes = (2, "0.50") if step is None else (1, "0.25")
    assert f"after step {steps}." in card and f"{passes} passes" in card


def test_a_card_tells_results_of_the_exported_weights_only(run_dir, tmp_path):
    folder = tmp_path.parent / "measured"
    for name, nll in (("before", 5.25), ("after", 3.75)):
        file = type(folder)(run_dir) / "evaluation" / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"tokens": 10, "nll": nll}))
    export([run_dir, str(tmp_path / "last")])
    export([run_dir, str(tmp_path / "best"), "--step", "best"])
    assert "| 5.25 | 3.75 |" in (tmp_path / "last" / "README.md").read_text()
    assert "3.75" not in (tmp_path / "best" / "README.md").read_text()


def test_a_run_folder_is_a_model_with_its_own_settings(run_dir, tiny_pretrained):
    assert prompt_settings(run_dir)[:3] == ("chat", 300, 256)
    assert prompt_settings(run_dir, "alpaca", max_prompt_length=32)[:3] == ("alpaca", 300, 32)
    assert prompt_settings("acme/other") == ("alpaca", 512, 256, ChatConfig())
    best = open_model(run_dir, step="best")
    np.testing.assert_array_equal(
        best.params["embed"]["embedding"], tiny_pretrained.params["embed"]["embedding"]
    )


@pytest.mark.parametrize(
    ("run", "step", "message"),
    [(None, "latest", "not a run folder"), ("run", "7", "no checkpoint '7'")],
)
def test_what_cannot_be_exported_is_said(run_dir, tmp_path, run, step, message, capsys):
    source = run_dir if run else str(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        export([source, str(tmp_path / "exported"), "--step", step])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
