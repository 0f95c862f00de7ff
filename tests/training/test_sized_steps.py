"""A run whose steps are of several sizes is the run of one size, with less padding."""

import signal

import numpy as np
import pytest

from adakd_jax.data import step_sizes
from adakd_jax.training.records import read_records
from tests.training.tiny_run import run, weights

CHANGES = {
    "training": {"steps": 6, "batch_examples": 5},
    "evaluation": {"before": False, "generate_examples": 0, "token_snapshots": 0},
}
TOLD = ("loss", "keep_ratio", "grad_norm", "response_tokens")


def told(config):
    records = read_records(config.run_dir)
    return [[each[name] for name in TOLD] for each in records if each["kind"] == "train"]


@pytest.mark.slow
def test_sizes_change_nothing_but_the_padding_and_a_restart_is_exact(
    settings, stop_after, monkeypatch
):
    one, several, parts = (settings(name, **CHANGES) for name in ("one", "several", "parts"))
    run(one)
    monkeypatch.setattr(step_sizes, "_WORTH", 0)
    shown = run(several)
    assert "a step, as its examples need" in shown
    compiled = [line for line in shown.splitlines() if line.startswith("train step compiled")]
    assert len(compiled) > 1
    np.testing.assert_allclose(told(several), told(one), rtol=1e-5)
    stop_after(3, signal.SIGTERM)
    with pytest.raises(SystemExit):
        run(parts)
    assert "continuing after step" in run(parts)
    assert told(parts) == told(several)
    for mine, other in zip(weights(parts), weights(several), strict=True):
        np.testing.assert_array_equal(mine, other)
