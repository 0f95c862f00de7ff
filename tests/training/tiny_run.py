"""What tests of whole runs do with one."""

import io

import jax

from adakd_jax.console import Console
from adakd_jax.training.checkpoint import Checkpoints
from adakd_jax.training.run import run_job
from adakd_jax.training.saved_student import load_student

STEPS = 6


def run(config):
    console = Console(record=True, width=120, file=io.StringIO())
    run_job(config, ["python", "-m", "adakd_jax.train"], console)
    return console.export_text()


def weights(config):
    return jax.tree.leaves(load_student(config.run_dir).params)


def latest(config):
    with Checkpoints(config.run_dir) as checkpoints:
        return checkpoints.latest_step
