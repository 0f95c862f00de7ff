"""Whole runs whose student is what matters most in its teacher."""

import io
import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from adakd_jax.config.prune import PruneCommand
from adakd_jax.console import Console
from adakd_jax.hf.load import load_pretrained
from adakd_jax.reports.gather import read_runs
from adakd_jax.reports.page import render
from adakd_jax.training import pruned
from adakd_jax.training.dry_run import dry_run
from adakd_jax.training.pruning_report import report_pruning
from tests.training.tiny_run import latest, run, weights

STUDENT = {"kind": "pruned", "layers": 2, "ffw": 0.5, "heads": 0.5, "calibration_rows": 3}


def test_a_stopped_run_goes_on_with_what_it_kept(settings, stop_after, monkeypatch):
    whole, parts = settings("whole", student=STUDENT), settings("parts", student=STUDENT)
    shown = run(whole)
    assert "tokens of training rows were looked at; kept are layers" in shown
    found = json.loads((Path(whole.run_dir) / "pruning.json").read_text())
    assert found["settings"]["ffw"] == 0.5 and len(found["influence"]) == 3
    assert found["fitted"] == ["layers.attn.out.kernel", "layers.ffw.down.kernel"]
    exported = load_pretrained(Path(whole.run_dir) / "export")
    assert (exported.config.num_layers, exported.config.ffw_dim) == (2, 32)
    assert (exported.config.num_heads, exported.config.num_kv_heads) == (2, 1)
    counts = found["parameters"]
    assert counts["student"] == sum(leaf.size for leaf in jax.tree.leaves(exported.params))
    page = render(read_runs([whole.run_dir]))
    assert "Forward KL to the teacher by size" in page and "as it was cut" in page
    card = (Path(whole.run_dir) / "export" / "README.md").read_text()
    assert "32 neurons and 1 key-value heads of" in card

    stop_after(2, signal.SIGTERM)
    with pytest.raises(SystemExit):
        run(parts)
    assert latest(parts) in (2, 3)
    monkeypatch.setattr(pruned, "measure", None)  # what is written down is read
    assert "continuing after step" in run(parts)
    for one, other in zip(weights(whole), weights(parts), strict=True):
        assert np.array_equal(one, other)


def test_adapters_on_what_was_kept(settings, stop_after):
    student = STUDENT | {"lora": {"rank": 4, "base_dtype": "float32"}}
    config = settings("adapters", student=student)
    stop_after(2, signal.SIGTERM)
    with pytest.raises(SystemExit):
        run(config)
    assert "exported" in run(config)
    folder = Path(config.run_dir)
    exported = load_pretrained(folder / "export")
    assert (folder / "pruning.safetensors").exists() and exported.config.ffw_dim == 32
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(exported.params))


def test_a_choice_of_other_settings_is_refused(settings):
    config = settings("other", student=STUDENT)
    folder = Path(config.run_dir)
    folder.mkdir()
    others = settings("o", student=STUDENT | {"layers": 3}).student.model_dump()
    written = {"settings": others, "choice": {}, "fitted": []}
    (folder / "pruning.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=r"student.layers is 3 there and 2 here; valid: the same"):
        run(config)


def test_a_dry_run_knows_its_size(settings):
    console = Console(record=True, width=120, file=io.StringIO())
    dry_run(settings("dry", student={"kind": "pruned", "layers": 2, "ffw": 0.5}), console)
    assert "2 layers" in console.export_text()


def test_smaller_models_are_tried_and_drawn(settings, tmp_path):
    values = settings("tried").model_dump() | {"shares": (0.7,), "rounds": 1}
    config = PruneCommand.model_validate(values | {"of": ("parameters", "layers", "ffw")})
    console = Console(record=True, width=160, file=io.StringIO())
    candidates = report_pruning(config, console)
    shown = console.export_text()
    assert "by influence, the least first" in shown and "0.7 of ffw" in shown
    assert [each.what for each in candidates] == ["teacher", "parameters", "layers", "ffw"]
    whole, by_count, fewer, narrower = candidates
    distances = [each.measured.forward_kl for each in candidates]
    assert distances[0] < 1e-6 < min(distances[1:])
    assert fewer.sizes.layers == 2 and narrower.sizes.ffw == 48
    assert abs(by_count.parameters - 0.7 * whole.parameters) < 0.1 * whole.parameters
    assert 0 < narrower.seconds < whole.seconds
    page = (tmp_path / "tried" / "pruning.html").read_text()
    assert "How small can" in page and "Layers left out one by one" in page
    numbers = json.loads((tmp_path / "tried" / "pruning.html.json").read_text())
    assert numbers["candidates"][2]["sizes"]["layers"] == 2 and len(numbers["removed"]) == 1
