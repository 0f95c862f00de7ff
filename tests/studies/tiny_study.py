"""What tests of whole studies do with one."""

import io

from adakd_jax.config.study import StudyConfig
from adakd_jax.console import Console
from adakd_jax.studies.overhead import run_overhead
from adakd_jax.studies.plan import plan
from adakd_jax.studies.quality import run_quality

STEPS = 4
PLAIN = {"score": {"kind": "uniform"}, "focus": {"kind": "all"}, "temperature": {"kind": "fixed"}}
METHODS = {"plain": {"distill": PLAIN}, "AdaKD": {}}


def make_study(base, output, **changes):
    values = {
        "base": str(base),
        "output": str(output),
        "seeds": (0, 1),
        "methods": METHODS,
        "baseline": "plain",
        "resamples": 50,
    }
    return StudyConfig.model_validate(values | changes)


def start(study):
    """Starts a study and returns what it showed."""
    runs, problems = plan(study)
    assert problems == []
    console = Console(record=True, width=120, file=io.StringIO())
    measure = run_overhead if study.measure == "overhead" else run_quality
    measure(study, runs, ["python", "-m", "adakd_jax.study", "--config", "/x/y.yaml"], console)
    return console.export_text()
