"""The benchmark of a GPU, rehearsed: what its parts hold to a limit, how their processes end."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adakd_jax.models.families import FAMILIES
from benchmarks.cases import Setting
from benchmarks.gpu import loss as loss_part
from benchmarks.gpu.goals import goals
from benchmarks.gpu.options import Options, attempt, shown
from benchmarks.gpu.pairs import LORA, qwen2_pair, smollm2_pair
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.planned import topology_of
from benchmarks.gpu.processes import PartRun
from benchmarks.gpu.run_part import ROW
from benchmarks.gpu.steps import _operations_of_row
from benchmarks.gpu.tiny_models import TINY
from benchmarks.rows import dolly_batches
from benchmarks.run_step import METHODS, run_settings
from benchmarks.turns import mean_of_medians

ROOT = Path(__file__).parents[2]


@pytest.fixture
def options(tmp_path):
    return Options(True, tmp_path, None, "nowhere")


def leave(options, part, *rows):
    (options.out / f"{part}.json").write_text(json.dumps({"rows": rows, "error": None}))


def test_every_tiny_model_is_of_a_family():
    assert TINY.keys() <= FAMILIES.keys()
    assert all(config["model_type"] == name for name, config in TINY.items())


def test_every_part_can_be_loaded():
    assert all(callable(part.load()) for part in PARTS.values())


def test_a_wrong_loss_does_not_pass(monkeypatch):
    right = loss_part._compared(loss_part.METHODS["plain"], "float32", True)
    assert right["passed"] and right["head_gradient"] > 0
    true_loss = loss_part.whole_logits_loss

    def wrong(*arguments):
        value, report = true_loss(*arguments)
        return 1.01 * value, report

    monkeypatch.setattr(loss_part, "whole_logits_loss", wrong)
    assert not loss_part._compared(loss_part.METHODS["plain"], "float32", True)["passed"]


def test_rows_are_lines_and_failures_say_why():
    def fails():
        raise ValueError("no such\nthing")

    row = attempt("a", fails)
    assert row["error"].startswith("ValueError: no such (test_gpu.py:")
    assert shown(row).startswith("a: FAILED ValueError")
    assert shown({"what": "b", "x": 0.12345, "n": 12345, "passed": False}) == (
        "b: x 0.1235, n 12,345 [FAIL]"
    )


def run(code, seconds=60.0):
    part = PartRun([sys.executable, "-c", code], seconds, {})
    return list(part.rows()), part.error


def test_a_part_over_its_time_ends_and_keeps_its_rows():
    code = f"print('{ROW}' + '{{\"what\": \"a\"}}', flush=True); import time; time.sleep(60)"
    began = time.monotonic()
    rows, error = run(code, seconds=2.0)
    assert rows == [{"what": "a"}] and error == "stopped after 2 s, its time"
    assert time.monotonic() - began < 20


def test_a_part_that_fails_says_with_what():
    rows, error = run("print('noise'); raise SystemExit('no device')")
    assert rows == [] and error == "exit code 1; no device"
    assert run("") == ([], None)


def test_goals_are_judged_by_the_worst(options):
    whole = options._replace(small=False)
    assert {goal.passed for goal in goals(whole)} == {None}
    leave(
        whole, "large", {"what": "Qwen2, LoRA, 1 × 2, plain", "mfu": 0.5},
        {"what": "Qwen2, all weights, 1 × 2, plain", "mfu": 0.4},
        {"what": "Qwen2, LoRA, 1 × 2, AdaKD r = 1", "over_plain": 1.07},
        {"what": "Qwen2, LoRA, 1 × 2, AdaKD r = 0.5", "over_plain": 1.3},
    )  # fmt: skip
    leave(
        whole, "torch_steps",
        {"what": "SmolLM2, Dolly rows, torch, plain, eager", "ours_over_this": 1.31},
        {"what": "SmolLM2, 1 × 2, torch, plain, eager", "ours_over_this": 1.0},
    )  # fmt: skip
    leave(whole, "loss", {"what": "a", "passed": True}, {"what": "b", "error": "c"})
    assert [goal.passed for goal in goals(whole)[:3]] == [False, True, True]
    assert {goal.title[:4]: goal.passed for goal in goals(whole)}["loss"] is False
    assert {goal.passed for goal in goals(options)[:3]} == {None}  # tiny sizes


def test_operations_of_a_row():
    lora = run_settings(qwen2_pair(True, lora=True), "adakd", 2, 16)
    whole = run_settings(qwen2_pair(True, lora=False), "adakd", 4, 16)
    all_kept = [_operations_of_row(config, 1.0) for config in (lora, whole)]
    assert all_kept[0] < all_kept[1] and _operations_of_row(lora, 0.5) < all_kept[0]
    assert lora.student.lora.rank == LORA["r"] and lora.student.lora.targets == ("q_proj", "v_proj")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pair", "billions"),
    [
        (smollm2_pair(False), (0.7, 1.0)),
        (qwen2_pair(False, lora=True), (19.0, 23.0)),
        (qwen2_pair(False, lora=False), (22.0, 27.0)),
    ],
)
def test_steps_of_full_size_can_be_built(pair, billions):
    """By shapes alone: 2 operations a weight of the teacher and of a frozen student's weight in
    each pass, 6 of a trained one.
    """
    for method in METHODS:
        counted = _operations_of_row(run_settings(pair, method, 1, 512), None) / 512 / 1e9
        assert billions[0] < counted < billions[1]


def test_devices_and_pairs_by_name():
    assert topology_of("NVIDIA H100 80GB HBM3") == "h100:1"
    assert topology_of("NVIDIA A100-SXM4-40GB") == "a100-40g:1"
    assert topology_of("cpu") == "cpu:1" and topology_of("abacus") is None
    large, small = qwen2_pair(False, lora=True), smollm2_pair(False)
    assert large.teacher["hidden_size"] == 3584 and large.student["hidden_size"] == 1536
    assert (small.student["num_hidden_layers"], small.dtype) == (15, "bfloat16")


def test_seconds_are_means_over_batches_of_medians():
    assert mean_of_medians([(0, 1.0), (1, 5.0), (0, 9.0), (0, 2.0)]) == 3.5


def test_rows_of_a_file_become_batches(tmp_path):
    from adakd_jax.hf.export import save_pretrained
    from tests.hf.tiny import SENTENCES, tiny_teacher

    teacher = save_pretrained(tiny_teacher(), tmp_path / "teacher")
    rows = [{"instruction": "Say it.", "input": "", "output": text} for text in SENTENCES * 4]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    packed, padded, longest = dolly_batches(tmp_path / "rows.jsonl", str(teacher), 2, 256, 2)
    assert [len(each) for each in (packed, padded, longest)] == [2, 2, 2]
    assert packed[0].tokens.shape == padded[0].tokens.shape == (2, 256)
    assert longest[0].tokens.shape[1] < 256 and padded[0].segments.max() == 1
    assert packed[0].response_tokens > padded[0].response_tokens > 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--only", "stepps"], "no part 'stepps'"), (["--rows", "nowhere"], "no such file")],
)
def test_wrong_flags_are_refused(flags, said, tmp_path):
    done = command(tmp_path, *flags)
    assert done.returncode == 2 and said in done.stderr


def command(out, *flags):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--small", "--out", out, *flags],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_the_rehearsal_leaves_a_file_a_part_and_goes_on(tmp_path):
    parts = "product,loss,attention,steps,plan"
    done = command(tmp_path, "--only", parts)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in parts.split(",")}
    assert not any(part["error"] for part in found.values())
    assert not any("error" in row for part in found.values() for row in part["rows"]), done.stdout
    assert all(row["passed"] for name in ("loss", "attention") for row in found[name]["rows"])
    assert [row["mfu"] > 0 and row["program_gib"] > 0 for row in found["steps"]["rows"]] == 4 * [
        True
    ]
    assert found["plan"]["rows"][0]["passed"]
    again = command(tmp_path, "--only", parts)
    assert again.stdout.count("there already") == 5
    assert "pass  attention: within its limits: 6 of 6" in again.stdout


@pytest.mark.slow
def test_contenders_take_turns(tmp_path):
    from benchmarks.cases import full_rows, save_batches
    from benchmarks.turns import Entry, take_turns

    file = tmp_path / "batches.npz"
    save_batches(file, [full_rows(1, 16, vocabulary=320)])
    pair = smollm2_pair(True)
    entries = [
        Entry("ours", "run_step", "plain", file, pair),
        Entry("broken", "run_step", "no such method", file, pair),
        Entry("no model", "run_step", "plain", file, Setting({}, {})),
    ]
    found = take_turns(entries, 2, 2, {"JAX_PLATFORMS": "cpu"})
    assert found["ours"]["seconds"] > 0 and len(found["ours"]["seconds_by_round"]) == 2
    assert "no such method" in found["broken"]["error"] and "error" in found["no model"]
