"""A run folder as a training leaves it, written by hand: small, and with malice in it."""

import json

import pytest
import yaml

EVIL = "</script><script>window.stolen = 1</script>\"'><img src=x onerror='window.stolen = 2'>&amp;"
STEPS = 40
PIECES = ["<|im_start|>", "user", "\n", "Why", "?", "The", " sky", "", "é", "</b>", " is", "\n"]
PLACES = [5, 6, 7, 8, 9, 10, 11]


def record(step):
    fall = 1.0 - step / (2 * STEPS)
    quantiles = {"q10": 0.5, "q25": 0.6, "q50": 0.7, "q75": 0.8, "q90": 0.9}
    return {
        "step": step,
        "kind": "train",
        "loss": 4.0 * fall if step != 3 else None,
        "ce_loss": 5.0 * fall,
        "forward_kl": 3.0 * fall,
        "reverse_kl": 2.0 * fall,
        "keep_ratio": fall,
        "latf_ema": 2.0 * fall,
        "latf_reference": 0.0 if step < 5 else 2.1 * fall,
        "grad_norm": 3.0,
        "gradient_norm_hard": 0.8 * fall,
        "gradient_norm_easy": 0.1 * fall,
        "learning_rate": 1e-4 * fall,
        "tokens_per_second": 100.0,
        "response_tokens_per_second": 60.0,
        "seconds": 2.0,
        "host_peak_gib": 1.5,
        "skipped_steps": 1.0,
        **{f"score_{name}": value * fall for name, value in quantiles.items()},
        **{f"temperature_{name}": value + 0.3 for name, value in quantiles.items()},
    }


def snapshot(step):
    count = len(PLACES)
    top = [[[" sky", 0.5], [EVIL, 0.2], ["\n", 0.1], [" is", 0.05], ["x", 0.01]]] * count
    example = {
        "pieces": PIECES,
        "places": PLACES,
        "cut": [False, True],
        "score": [round(0.1 * i + 0.001 * step, 4) for i in range(count)],
        "selected": [i >= 3 for i in range(count)],
        "temperature": [1.0, 1.0, 1.0, 0.8, 0.9, 1.1, 1.3],
        "student_nll": [1.0] * count,
        "student": top,
        "teacher_nll": [0.5] * count,
        "teacher": top,
    }
    return {"step": step, "keep_ratio": 0.6, "examples": [example, example]}


def evaluation(nll):
    answer = {
        "prompt": "Why is the sky blue?",
        "references": ["It scatters."],
        "answer": f"Because {EVIL}",
        "tokens": 9,
        "finish": "length",
        "rouge_l": 0.25,
    }
    return {
        "tokens": 1234,
        "nll": nll,
        "forward_kl": nll / 2,
        "rouge_l": 0.25,
        "rouge_l_low": 0.2,
        "rouge_l_high": 0.3,
        "intervals": {"nll": [nll - 0.1, nll + 0.1], "rouge_l": [0.2, 0.3]},
        "answers": [answer],
    }


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


@pytest.fixture
def make_run(tmp_path):
    """Writes a run folder under a name; `after` is its NLL after training."""

    def make(name, *, kind="latf", after=2.5, snapshots=(0, 20, 40)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        settings = {
            "run_dir": str(folder),
            "teacher": {"path": EVIL},
            "distill": {"focus": {"kind": kind}, "temperature": {"kind": "idts", "base": 1.0}},
            "training": {"steps": STEPS},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        records = [record(step) for step in range(1, STEPS + 1)]
        records.append({"step": 20, "kind": "eval", "nll": 3.0, "forward_kl": 1.5})
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records))
        start = {
            "time": "2026-01-02T03:04:05+00:00",
            "command": f"train {EVIL}",
            "devices": ["cpu:0"],
            "packages": {"jax": "0.10.2"},
            "git": None,
        }
        write_json(folder / "run.json", [start])
        write_json(folder / "student" / "training.json", {"teacher": "big/TEACHER", "method": EVIL})
        write_json(folder / "evaluation" / "teacher.json", {"answers": [{"answer": "Scattering."}]})
        write_json(folder / "evaluation" / "before.json", evaluation(4.0))
        write_json(folder / "evaluation" / "after.json", evaluation(after))
        for step in snapshots:
            write_json(folder / "tokens" / f"step_{step}.json", snapshot(step))
        return folder

    return make
