"""Run folders of other settings, caches that were cut short, signals that come twice."""

import shutil
import signal
import time

from benchmarks.faults.compare import difference
from benchmarks.faults.observation import Observation, first_of, line_with, refused
from benchmarks.faults.of_checkpoints import cut_in_half, half_done, reference
from benchmarks.faults.workplace import Training, Workplace, saved_steps

ATTEMPTS = 10


def other_settings(place: Workplace) -> Observation:
    """A run folder of another configuration."""
    run_dir = half_done(place, "other_settings")
    before = saved_steps(run_dir)
    training = place.finish(place.settings(run_dir, seed=4, optimizer={"learning_rate": 0.1}))
    line, problem = refused(training, "holds a run with other settings")
    differences = ("seed: 3 -> 4", "optimizer.learning_rate: 0.005 -> 0.1")
    missing = [each for each in differences if each not in training.shown]
    return Observation(
        fault="run folder of another configuration",
        how="another seed and learning rate",
        promise="refused, every difference listed; the folder untouched",
        code=training.code,
        message=line,
        problem=first_of(
            problem,
            f"not listed: {missing}" if missing else None,
            None if saved_steps(run_dir) == before else "the folder was changed",
        ),
    )


def cut_compilations(place: Workplace) -> Observation:
    """Compiled programs that a kill left half written."""
    run_dir = half_done(place, "cut_compilations")
    cache = place.fresh("compilations-cut")
    shutil.copytree(place.compilations, cache)
    files = list(cache.glob("*-cache"))
    for file in files:
        cut_in_half(file)
    training = place.finish(place.settings(run_dir), cache)
    return Observation(
        fault="truncated files in the cache of compiled programs",
        how=f"all {len(files)} of them",
        promise="compiled again; same student in the end",
        code=training.code,
        message=line_with(training, "persistent compilation cache"),
        problem=first_of(
            None if training.code == 0 else f"exit code {training.code}",
            difference(reference(place), run_dir),
        ),
    )


def sigterm_twice(place: Workplace) -> Observation:
    """A second SIGTERM while the first one's save is under way."""
    for _ in range(ATTEMPTS):
        training = _told_twice(place)
        line = line_with(training, "SIGTERM again")
        if line:
            break
    run_dir = training.run_dir
    stopped = line_with(training, "SIGTERM: saved after step")
    code = training.code
    again = place.finish(place.settings(run_dir))
    return Observation(
        fault="SIGTERM twice",
        how="the second while the state is saved",
        promise="the save is completed, exit 0; same student in the end",
        code=code,
        message=line,
        problem=first_of(
            None if line else f"the second signal came too late in {ATTEMPTS} attempts",
            None if stopped and code == 0 else f"exit code {code}, no line that it was saved",
            None if again.code == 0 else f"the restart ended with {again.code}",
            difference(reference(place), run_dir),
        ),
    )


def _told_twice(place: Workplace) -> Training:
    run_dir = place.fresh("twice")
    training = place.start(place.settings(run_dir))
    training.wait_until(lambda: len(saved_steps(run_dir)) >= 2)
    training.send(signal.SIGTERM)
    training.wait_until(lambda: "SIGTERM: saves after this step" in training.shown)
    while training.code is None and "SIGTERM again" not in training.shown:
        training.send(signal.SIGTERM)
        time.sleep(0.002)
    training.wait()
    return training
