"""Token snapshots: what they say is what the policy and the models say, whenever a run stops."""

import json
import re
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.axes import IGNORE
from adakd_jax.config import DistillConfig
from adakd_jax.data.token_text import text_pieces, token_texts
from adakd_jax.distill import Signals, select_top_ratio, token_scores
from adakd_jax.models import logits
from adakd_jax.report import main as write_report
from adakd_jax.training.forward import merge, run_models
from adakd_jax.training.memory import peak_memory
from adakd_jax.training.token_view import CHUNK, TOP, Viewed, token_view
from adakd_jax.training.tokens import readable
from tests.hf.tiny import SENTENCES
from tests.own_process import told_by
from tests.training.conftest import random_batch
from tests.training.tiny_run import STEPS, run

SNAPSHOTS = {"token_snapshots": 3, "token_examples": 2, "every_steps": 3, "generate_examples": 0}


def snapshots(folder):
    return {
        json.loads(file.read_text())["step"]: json.loads(file.read_text())
        for file in (folder / "tokens").iterdir()
    }


def report_of(config):
    write_report([config.run_dir])
    return (Path(config.run_dir) / "report.html").read_text()


@pytest.fixture
def first_batch():
    return jax.tree.map(lambda x: jnp.asarray(x[0]), random_batch(3))


def test_a_view_is_what_the_whole_logits_say(pair, first_batch):
    distill = DistillConfig()
    places = np.flatnonzero(first_batch.labels != IGNORE).astype(np.int32)
    count, filled = len(places), np.pad(places, (0, -len(places) % CHUNK), mode="edge")
    signals = Signals(keep_ratio=np.float32(0.5), progress=np.float32(0.25))
    view = token_view(
        Viewed(distill, pair.student, pair.teacher),
        pair.student_params,
        pair.teacher_params,
        first_batch,
        filled,
        signals,
    )
    view = jax.tree.map(lambda x: np.asarray(x)[:count], view)
    models = merge(pair.student, pair.student_params), merge(pair.teacher, pair.teacher_params)
    outputs = run_models(*models, first_batch, ())
    student, teacher = (
        np.asarray(logits(hidden, head)).reshape(-1, head.size)[places]
        for hidden, head in (outputs[:2], outputs[2:4])
    )
    labels = first_batch.labels.reshape(-1)[places]
    for seen, scores in ((view.student, student), (view.teacher, teacher)):
        each = np.exp(scores - scores.max(-1, keepdims=True))
        each /= each.sum(-1, keepdims=True)
        np.testing.assert_allclose(seen.nll, -np.log(each[range(count), labels]), rtol=1e-4)
        np.testing.assert_allclose(seen.probability, np.sort(each)[:, : -TOP - 1 : -1], rtol=1e-4)
        assert (seen.token[:, 0] == scores.argmax(-1)).all()
    scores = token_scores("hellinger", jnp.asarray(student), jnp.asarray(teacher))
    np.testing.assert_allclose(view.policy.score, scores, rtol=1e-4, atol=1e-6)
    kept = select_top_ratio(scores, jnp.ones(count, bool), 0.5)
    assert (view.policy.selected == kept).all() and 0 < kept.sum() < count
    assert (view.policy.temperature[~np.asarray(kept)] == 1.0).all()


def test_a_run_leaves_snapshots_from_before_to_after_training(settings, tmp_path):
    config = settings(evaluation=SNAPSHOTS | {"token_examples": 9})
    run(config)
    found = snapshots(tmp_path / "run")
    assert sorted(found) == [0, 3, 6]
    first, last = found[0], found[STEPS]
    assert first["keep_ratio"] == 1.0 and len(last["examples"]) == 6
    for one, other in zip(first["examples"], last["examples"], strict=True):
        assert one["pieces"] == other["pieces"] and one["score"] != other["score"]
        assert all(one["selected"])
        asked = re.match(r"<\|im_start\|>user\nSay it (\d+) times\.", "".join(one["pieces"]))
        number = int(asked[1])
        for column in ("score", "selected", "temperature", "student", "teacher", "teacher_nll"):
            assert len(other[column]) == len(other["places"]) > 0
        learned = "".join(other["pieces"][place] for place in other["places"])
        assert learned.startswith(SENTENCES[number % 3][: 10 + number])
        assert "".join(other["pieces"]).endswith(learned)
    for snapshot, when in ((first, "before"), (last, "after")):
        measured = json.loads((tmp_path / "run" / "evaluation" / f"{when}.json").read_text())
        for column, name in (("student_nll", "nll"), ("teacher_nll", "nll_teacher")):
            values = [value for example in snapshot["examples"] for value in example[column]]
            assert np.mean(values) == pytest.approx(measured[name], abs=1e-3)
    page = report_of(config)
    for text in ("KL to the teacher", "Memory", "Temperature τ", "after training"):
        assert text in page, text
    assert page.count('role="button"') == sum(len(each["places"]) for each in last["examples"])


@pytest.mark.slow
def test_a_stopped_run_neither_repeats_nor_loses_a_snapshot(settings, stop_after, tmp_path):
    whole, parts = settings("whole", evaluation=SNAPSHOTS), settings("parts", evaluation=SNAPSHOTS)
    run(whole)
    stop_after(2, signal.SIGTERM)
    with pytest.raises(SystemExit):
        run(parts)
    early = tmp_path / "parts" / "tokens" / "step_0.json"
    written = early.stat().st_mtime_ns
    run(parts)
    assert snapshots(tmp_path / "whole") == snapshots(tmp_path / "parts")
    assert early.stat().st_mtime_ns == written


def test_runs_without_a_teacher_show_the_student_alone(settings, teacher, tmp_path):
    config = settings(
        teacher=None,
        student={"kind": "checkpoint", "path": str(teacher)},
        distill={"kd_weight": 0.0, "ce_weight": 1.0},
        evaluation=SNAPSHOTS | {"token_snapshots": 1},
    )
    run(config)
    found = snapshots(tmp_path / "run")
    assert list(found) == [STEPS]
    assert set(found[STEPS]["examples"][0]) == {"pieces", "places", "cut", "student", "student_nll"}
    assert "--v:" not in report_of(config)


def test_the_first_readable_examples_are_chosen_else_the_shortest():
    for lengths, count, chosen in (
        ([600, 40, 512, 513, 9], 2, [1, 2]),
        ([600, 40, 700, 513], 3, [0, 1, 3]),
        ([30], 4, [0]),
    ):
        assert readable(np.array(lengths), count).tolist() == chosen


def test_pieces_join_to_the_text(teacher):
    from adakd_jax.hf.load import load_pretrained

    tokenizer = load_pretrained(teacher).tokenizer
    text = "<|im_start|>user\nA naïve 猫 said “so”.<|im_end|>\n"
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = text_pieces(tokenizer, tokens)
    assert "".join(pieces) == text and len(pieces) == len(tokens)
    assert "猫" in pieces and pieces[0] == "<|im_start|>"
    assert pieces[pieces.index("猫") - 1] == ""
    shown = token_texts(tokenizer, tokens)
    spaced = next(token for token in tokens if shown[token].startswith(" "))
    assert shown[spaced] in text


def test_peak_memory_is_that_of_the_process_not_of_what_started_it():
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell in /proc")
    held = np.ones(2**27)  # 1 GiB
    child = told_by(
        "-c",
        "import json; from adakd_jax.training.memory import peak_memory\n"
        "import numpy as np; peak_memory()\n"  # which starts JAX's platforms
        "before = peak_memory()['host_peak_gib']; np.ones(2**25)\n"
        "print(json.dumps([before, peak_memory()['host_peak_gib']]))",
    )
    assert 0 < child[0] < 0.9 and child[1] - child[0] == pytest.approx(0.25, abs=0.02)
    assert peak_memory()["host_peak_gib"] > 1 and held.all()
