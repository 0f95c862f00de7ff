"""Checkpoints that are no longer what was saved."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from etils import epath

from adakd_jax.training.integrity import damage
from benchmarks.faults.compare import difference
from benchmarks.faults.observation import Observation, first_of, line_with, refused
from benchmarks.faults.workplace import POLICIES, Workplace, recorded, saved_steps


def reference(place: Workplace, policy: str = "offline") -> Path:
    """The run that is left alone."""
    run_dir = place.folder / f"reference_{policy}"
    if not (run_dir / "export").exists():
        training = place.finish(place.settings(run_dir, **POLICIES[policy]))
        if training.code != 0:
            raise RuntimeError(
                f"the run without faults ended with {training.code}:\n{training.shown}"
            )
    return run_dir


def half_done(place: Workplace, name: str) -> Path:
    """A run that was stopped in the middle by SIGTERM, with two checkpoints."""
    source = place.folder / "half"
    if len(saved_steps(source)) < 2:
        place.fresh("half")
        training = place.start(place.settings(source))
        training.wait_until(lambda: recorded(source) >= place.steps // 2)
        training.send(signal.SIGTERM)
        training.wait()
    target = place.fresh(name)
    shutil.copytree(source, target)
    return target


def flip_a_bit(file: Path) -> None:
    """Inverts a bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def cut_in_half(file: Path) -> None:
    """Leaves the first half."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def largest_file(folder: Path) -> Path:
    """Where most of the weights are."""
    return max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def newest(run_dir: Path) -> Path:
    """Folder of the newest checkpoint."""
    return run_dir / "checkpoints" / f"step_{saved_steps(run_dir)[-1]}"


def bit_flipped(place: Workplace) -> Observation:
    """One bit in the arrays of the newest checkpoint."""
    return _damaged(place, "checkpoint with a flipped bit", "flipped", flip_a_bit)


def truncated(place: Workplace) -> Observation:
    """Half of the largest file of the newest checkpoint is gone."""
    return _damaged(place, "truncated checkpoint", "truncated", cut_in_half)


def _damaged(place: Workplace, fault: str, name: str, harm: Callable[[Path], None]) -> Observation:
    run_dir = half_done(place, name)
    before = saved_steps(run_dir)
    harm(largest_file(newest(run_dir)))
    training = place.finish(place.settings(run_dir))
    line = line_with(training, f"step_{before[-1]}", "damaged")
    back = f"continuing after step {before[-2]} of" in training.shown
    return Observation(
        fault=fault,
        how="largest file of the newest one",
        promise="detected, said, the previous one used; same student in the end",
        code=training.code,
        message=line,
        problem=first_of(
            None if line else "not said",
            None if back else f"did not go on from step {before[-2]}",
            difference(reference(place), run_dir),
        ),
    )


def every_file(place: Workplace) -> Observation:
    """A bit in each file of a checkpoint in turn."""
    run_dir = half_done(place, "every_file")
    folder = newest(run_dir)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    missed = []
    for file in files:
        whole = file.read_bytes()
        flip_a_bit(file)
        if whole and damage(epath.Path(folder)) is None:
            missed.append(str(file.relative_to(folder)))
        file.write_bytes(whole)
    # Orbax can do without these, and the list of checksums is not made to be checked against itself
    harmless = {"_CHECKPOINT_METADATA", "commit_success.txt", "checksums.json"}
    return Observation(
        fault="a flipped bit in each file of a checkpoint, in turn",
        how=f"{len(files)} files; in process",
        promise="detected in every file that holds state",
        code=None,
        message=f"detected in {len(files) - len(missed)} of {len(files)}; "
        f"not in {', '.join(missed) or 'none'}, without which it can be read",
        problem=first_of(*(f"not detected in {name}" for name in missed if name not in harmless)),
    )


def all_damaged(place: Workplace) -> Observation:
    """No checkpoint is sound."""
    run_dir = half_done(place, "all_damaged")
    steps = saved_steps(run_dir)
    for step in steps:
        flip_a_bit(largest_file(run_dir / "checkpoints" / f"step_{step}"))
    training = place.finish(place.settings(run_dir))
    line, problem = refused(training, "no sound checkpoint")
    kept = saved_steps(run_dir) == steps
    return Observation(
        fault="all checkpoints with flipped bits",
        how="",
        promise="refused, each with its fault; nothing deleted, nothing started anew",
        code=training.code,
        message=line,
        problem=first_of(problem, None if kept else "the folder was changed"),
    )
