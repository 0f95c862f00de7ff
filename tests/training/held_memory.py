"""What a run holds on its devices, when it starts anew and when it goes on from a checkpoint.

As a program, `python -m tests.training.held_memory TEACHER ROWS FOLDER`, on a mesh of four devices,
which need a process of their own. Prints the bytes as JSON.
"""

import gc
import json
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tests.own_process import with_devices

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = with_devices(4)

import jax

from adakd_jax.training import run as run_module
from adakd_jax.training.checkpoint import Checkpoints
from adakd_jax.training.records import MetricsLog
from tests.training.conftest import settings_of_a_run
from tests.training.tiny_run import run


def live():
    """Bytes of all arrays, on all devices."""
    gc.collect()
    return size(jax.live_arrays())


def size(tree):
    """Bytes on all devices; of two arrays that share a buffer, those of one."""
    held = {}
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            held[shard.device, shard.data.unsafe_buffer_pointer()] = shard.data.nbytes
    return sum(held.values())


@contextmanager
def noted():
    """Yields bytes beside those that were there already: where a checkpoint begins to be read,
    where training ends, and of what a run has to hold then.
    """
    known, found = live(), {}
    fit, restore = run_module.fit, Checkpoints.restore

    def fit_and_note(step, state, teacher_params, *args, base=None, **options):
        state, stopped = fit(step, state, teacher_params, *args, base=base, **options)
        found["trained"] = live() - known
        found["frozen"] = size((teacher_params, base))
        found["state"] = size(state._replace(replay=None))
        return state, stopped

    def restore_and_note(self, *args):
        found["restoring"] = live() - known
        return restore(self, *args)

    with (
        mock.patch.object(run_module, "fit", fit_and_note),
        mock.patch.object(Checkpoints, "restore", restore_and_note),
    ):
        yield found


@contextmanager
def stopping_after(step):
    write = MetricsLog.write

    def write_and_stop(self, done, values, kind="train"):
        write(self, done, values, kind)
        if done == step:
            signal.raise_signal(signal.SIGTERM)

    with mock.patch.object(MetricsLog, "write", write_and_stop):
        yield


def both_starts(config):
    """The bytes of a start that is stopped after two steps, and of the one that goes on."""
    with noted() as fresh, stopping_after(2):
        try:
            run(config)
        except SystemExit as stopped:
            assert stopped.code == 0
    with noted() as resumed:
        assert "continuing after step" in run(config)
    return {"fresh": fresh, "resumed": resumed}


def changes_of(lora, averages, **more):
    """Settings of a run that is as short as it can be."""
    return {
        "student": {"kind": "layers", "layers": [0, 2], "lora": {"rank": 4} if lora else None},
        "optimizer": {"learning_rate": 1e-3, "average_decay": 0.9 if averages else None},
        "evaluation": {"before": False, "generate_examples": 0, "token_snapshots": 0},
        "training": {"steps": 4, "batch_rows": 4},
        **more,
    }


if __name__ == "__main__":
    teacher, rows, folder = map(Path, sys.argv[1:])
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/adakd_jax/tests"))
    told = {}
    for name, lora in (("whole", False), ("adapters", True)):
        changes = changes_of(lora, averages=True, mesh={"data": 2, "fsdp": 2})
        config = settings_of_a_run(folder / name, teacher, rows, folder / "cache", **changes)
        told[name] = both_starts(config)
    print(json.dumps(told))
