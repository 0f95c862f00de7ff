"""Kills at random moments of a run, until it is done all the same."""

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.faults.compare import difference
from benchmarks.faults.workplace import POLICIES, Training, Workplace, recorded, saved_steps

SIGNALS = (signal.SIGKILL, signal.SIGTERM)
# Of each phase, up to how many seconds after its beginning the signal is sent.
PHASES = {"compile": 2.0, "restore": 0.5, "step": 0.3, "save": 0.06, "export": 0.04}
KILLS_OF_A_RUN = 5


class Kill(NamedTuple):
    """What is going to be done to a start of a run."""

    phase: str
    number: signal.Signals
    delay: float
    steps: int  # that are recorded or saved before; in `step` and `save`


def draw(rng: random.Random, training_goes_on: bool, saved: list[int], steps: int) -> Kill:
    """A random kill: before the last one of a run, anything but the export."""
    phases = [phase for phase in PHASES if phase != "export"] if training_goes_on else ["export"]
    if not saved:
        phases.remove("restore")
    phase = rng.choice(phases)
    ahead = 1 + rng.randrange(max(1, steps // (2 * KILLS_OF_A_RUN)))
    after = (saved[-1] if saved else 0) + ahead
    return Kill(phase, rng.choice(SIGNALS), rng.uniform(0.0, PHASES[phase]), after)


def moment(training: Training, kill: Kill) -> Callable[[], bool]:
    """Whether the phase of a kill has begun, as seen from outside."""
    folder = training.run_dir

    def saving() -> bool:
        begun = any(folder.glob("checkpoints/*tmp*"))
        return begun and (saved_steps(folder) or [0])[-1] >= kill.steps - 1

    return {
        "compile": lambda: "compiling the train step" in training.shown,
        "restore": lambda: "reading the checkpoint" in training.shown,
        "step": lambda: "compiled in" in training.shown and recorded(folder) >= kill.steps,
        "save": lambda: "compiled in" in training.shown and saving(),
        "export": lambda: any(folder.glob(".export*")),
    }[kill.phase]


def killed_start(
    place: Workplace, config: Any, kill: Kill, compilations: Path | None
) -> dict[str, Any]:
    """Starts a run and kills it; says what came of it, in JSON values."""
    training = place.start(config, compilations)
    hit = training.wait_until(moment(training, kill))
    time.sleep(kill.delay)
    hit = hit and training.code is None
    training.send(kill.number)
    sent = time.monotonic()
    code = training.wait()
    return {
        "phase": kill.phase,
        "signal": kill.number.name,
        "delay": round(kill.delay, 4),
        "hit": hit,
        "code": code,
        "seconds_to_end": round(time.monotonic() - sent, 2),
        "saved": saved_steps(training.run_dir),
        "shown": training.shown.splitlines()[-1:],
        "expected": code == (-signal.SIGKILL if hit and kill.number == signal.SIGKILL else 0),
    }


def killed_run(
    place: Workplace,
    name: str,
    reference: Path,
    rng: random.Random,
    tell: Callable[[str], None],
    kills: int = KILLS_OF_A_RUN,
    policy: str = "offline",
) -> dict[str, Any]:
    """Kills a run again and again, the last time while it exports, then lets it end.

    Returns:
        its kills and how it differs from the run that was left alone, in JSON values.
    """
    run_dir = place.fresh(name)
    config = place.settings(run_dir, **POLICIES[policy])
    cold = place.fresh(f"{name}-compilations")
    compilations = None
    done: list[dict[str, Any]] = []
    for number in range(kills):
        kill = draw(rng, number < kills - 1, saved_steps(run_dir), place.steps)
        if kill.phase == "compile":
            # Nothing compiled is at hand; what this start leaves of it, the next ones find.
            compilations = cold
        done.append(killed_start(place, config, kill, compilations))
        tell(f"{name}: {told(done[-1])}")
        if not done[-1]["hit"]:
            break
    last = place.finish(config, compilations)
    found = difference(reference, run_dir) if last.code == 0 else f"ended with {last.code}"
    shutil.rmtree(cold, ignore_errors=True)
    tell(f"{name}: {'as the run left alone, bit for bit' if found is None else found}")
    return {"name": name, "policy": policy, "kills": done, "difference": found}


def told(kill: dict[str, Any]) -> str:
    """A kill in a line."""
    what = f"{kill['signal']} {kill['delay']:.3f} s into {kill['phase']}"
    if not kill["hit"]:
        return f"{what}: too late, it had ended"
    odd = "" if kill["expected"] else "  NOT EXPECTED"
    return f"{what}: exit {kill['code']} after {kill['seconds_to_end']} s{odd}"
