"""Disks that are full, or not to be written to."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.faults.compare import difference, outcome
from benchmarks.faults.observation import SMALL_DISK, Observation, first_of, refused
from benchmarks.faults.of_checkpoints import half_done, newest, reference
from benchmarks.faults.workplace import (
    ROOT,
    WITH_OWN_MOUNTS,
    Training,
    Workplace,
    command,
    environment,
    saved_steps,
)

PAGE_BYTES = 4096
# What a start writes before its first step, and records of some steps: less than those of the
# twenty that are left, and less than the exported weights.
ROOM_FOR_A_START = 40 << 10


def full_disk(place: Workplace) -> Observation:
    """No room for the third checkpoint; then room again."""
    size = _room_for_two(half_done(place, "measured"))
    out = place.fresh("full_disk")
    with tempfile.TemporaryDirectory(prefix=SMALL_DISK) as small:
        first, second, left = _on_small_disk(place, Path(small), size, out)
    line, problem = refused(first, "No space left on device", "complete checkpoints: step_")
    return Observation(
        fault="disk full during a save",
        how=f"tmpfs of {size >> 10} KiB in a mount namespace",
        promise="says so and ends, older checkpoints intact; with room again, same student",
        code=first.code,
        message=line,
        problem=first_of(
            problem,
            None if any(map(re.compile(r"step_\d+").fullmatch, left)) else "no checkpoint is left",
            None if second.code == 0 else f"the restart ended with {second.code}",
            difference(reference(place), out),
        ),
    )


def full_disk_for_records(place: Workplace) -> Observation:
    """No room for the metrics of another step; then room again."""
    half = half_done(place, "measured")
    size = _size(half) + ROOM_FOR_A_START
    out = place.fresh("full_disk_for_records")
    changes = {"checkpoint": {"every_steps": 1000}, "evaluation": {"every_steps": None}}
    with tempfile.TemporaryDirectory(prefix=SMALL_DISK) as small:
        first, second, _ = _on_small_disk(place, Path(small), size, out, half, **changes)
    line, problem = refused(first, "No space left on device")
    named = any(name in line for name in ("metrics.jsonl", "tensorboard"))
    weights = "export/model.safetensors"
    same = second.code == 0 and outcome(out)[weights] == outcome(reference(place))[weights]
    return Observation(
        fault="disk full while metrics are written",
        how=f"tmpfs with room for {ROOM_FOR_A_START >> 10} KiB more",
        promise="says which file and ends; with room again, same student",
        code=first.code,
        message=line,
        problem=first_of(
            problem,
            None if named else "no file is named",
            None if same else f"the restart ended with {second.code}, or another student",
        ),
    )


def full_disk_for_export(place: Workplace) -> Observation:
    """No room for the exported weights of a run that is trained; then room again."""
    trained = place.fresh("trained")
    shutil.copytree(reference(place), trained, ignore=shutil.ignore_patterns("export"))
    size = _size(trained) + ROOM_FOR_A_START
    out = place.fresh("full_disk_for_export")
    with tempfile.TemporaryDirectory(prefix=SMALL_DISK) as small:
        first, second, left = _on_small_disk(place, Path(small), size, out, trained)
    line, problem = refused(first, "model.safetensors cannot be written", "No space left on device")
    return Observation(
        fault="disk full during the export",
        how=f"tmpfs with room for {ROOM_FOR_A_START >> 10} KiB more",
        promise="says which file and ends, nothing half exported; with room again, same student",
        code=first.code,
        message=line,
        problem=first_of(
            problem,
            "part of an export is left" if any("export" in name for name in left) else None,
            None if second.code == 0 else f"the restart ended with {second.code}",
            difference(reference(place), out),
        ),
    )


def _room_for_two(run_dir: Path) -> int:
    """Bytes in which a run has room for two checkpoints, not for three."""
    one = _size(newest(run_dir))
    return _size(run_dir) - len(saved_steps(run_dir)) * one + 5 * one // 2


def _size(folder: Path) -> int:
    """Bytes that a folder takes on a tmpfs: whole pages for files, nothing for folders."""
    lengths = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-length // PAGE_BYTES) for length in lengths) * PAGE_BYTES


class _Ended(Training):
    """A start that has ended, of which only output and exit code are left."""

    def __init__(self, shown: str, code: int):
        self._shown, self._code = shown, code

    @property
    def shown(self) -> str:
        return self._shown

    @property
    def code(self) -> int:
        return self._code


_SCRIPT = """
mount -t tmpfs -o size=$1 tmpfs "$2" || exit 99
run="$2" out="$3" half="$4"; shift 4
[ -z "$half" ] || cp -r "$half" "$run/run"
"$@" >"$out.first" 2>&1; echo $? >"$out.codes"
ls -A "$run/run" "$run/run/checkpoints" >"$out.left"
mount -o remount,size=1g "$run" && "$@" >"$out.second" 2>&1; echo $? >>"$out.codes"
cp -r "$run/run" "$out"
"""


def _on_small_disk(
    place: Workplace, small: Path, size: int, out: Path, half: Path | str = "", **changes: Any
) -> tuple[Training, Training, list[str]]:
    """Runs the command on a disk of its own that is too small, and again on a larger one; from the
    start, or from where another run stands.

    The disk is seen by these processes alone and is gone with them.

    Returns:
        both starts, and the names in the folders of run and checkpoints between them.
    """
    config: Any = place.settings(small / "run", **changes)
    arguments = command(config)
    # Its settings must be readable where the small disk hides the folder.
    file = out.with_suffix(".yaml")
    shutil.move(arguments[-1], file)
    done = subprocess.run(
        [*WITH_OWN_MOUNTS, _SCRIPT, "sh", str(size), small, out, half, *arguments[:-1], file],
        cwd=ROOT,
        env=environment(place.compilations),
        stderr=sys.stderr,
    )
    if done.returncode != 0:
        raise OSError("no mount namespace here: unshare --map-root-user --mount must be allowed")
    codes = [int(code) for code in out.with_suffix(".codes").read_text().split()]
    shown = [out.with_suffix(suffix).read_text() for suffix in (".first", ".second")]
    left = out.with_suffix(".left").read_text().split()
    return _Ended(shown[0], codes[0]), _Ended(shown[1], codes[1]), left


def read_only(place: Workplace) -> Observation:
    """A folder that cannot be written to, even by root."""
    out = place.fresh("read_only")
    with tempfile.TemporaryDirectory(prefix=SMALL_DISK) as folder:
        arguments = command(place.settings(Path(folder) / "run"))
        file = Path(shutil.move(arguments[-1], out.with_suffix(".yaml")))
        script = 'mount -t tmpfs -o ro tmpfs "$1" || exit 99; shift; exec "$@"'
        done = subprocess.run(
            [*WITH_OWN_MOUNTS, script, "sh", folder, *arguments[:-1], file],
            cwd=ROOT,
            env=environment(place.compilations),
            capture_output=True,
            text=True,
        )
    shown = done.stdout + done.stderr
    line = next((line for line in shown.splitlines() if "Read-only file system" in line), "")
    return Observation(
        fault="read-only run folder",
        how="tmpfs mounted read-only in a mount namespace",
        promise="refused before the models are loaded",
        code=done.returncode,
        message=line,
        problem=first_of(
            None if done.returncode == 2 and line else f"exit code {done.returncode}: {shown}",
            "the teacher was loaded first" if "loading" in shown else None,
            "a traceback is shown" if "Traceback" in shown else None,
        ),
    )
