"""What must fit into the steps of a run: warm-up, decay, evaluations.

`training.steps` says how many there are, so that settings are checked as they are built. Of
`training.epochs` it is known when the data is read, and the same rules are asked then.
"""

from adakd_jax.config.schema import written
from adakd_jax.config.stage import Check, Conflict, Stage, flatten

STEPS = "training.steps"


def _warmup_ends(warmup: int, steps: int | None) -> Conflict | None:
    if steps is None or warmup < steps:
        return None
    return Conflict(
        f"warm-up never ends within the run's {steps} steps", f"warmup_steps from 0 to {steps - 1}"
    )


def _warmup_before_decay(
    warmup: int, decay: float, schedule: str, steps: int | None
) -> Conflict | None:
    if schedule != "wsd" or steps is None or warmup >= steps:
        return None
    decay_starts = steps - round(decay * steps)
    if warmup <= decay_starts:
        return None
    return Conflict(
        f"warm-up runs into the decay, which starts at step {decay_starts}",
        f"warmup_steps from 0 to {decay_starts}, or a smaller decay_fraction",
    )


def _evaluated_in_time(policy: str, every_steps: int | None, steps: int | None) -> Conflict | None:
    if policy != "distillm" or every_steps is None or steps is None or every_steps < steps:
        return None
    return Conflict(
        "distillm uses the student's responses only after an evaluation, and the first one comes "
        f"at the end of the run's {steps} steps",
        "a smaller evaluation.every_steps, a longer run, or policy.kind gkd",
    )


SCHEDULE_CHECKS = (
    Check(("optimizer.warmup_steps", STEPS), _warmup_ends),
    Check(
        ("optimizer.warmup_steps", "optimizer.decay_fraction", "optimizer.schedule", STEPS),
        _warmup_before_decay,
    ),
    Check(("policy.kind", "evaluation.every_steps", STEPS), _evaluated_in_time),
)


class ScheduleError(ValueError):
    """Settings do not fit the number of steps that the data makes; names all that do not."""


def check_schedules(config: Stage, steps: int) -> None:
    """Ask the rules above of a run whose steps have been counted.

    Args:
        config: of a run.
        steps: that its epochs make.

    Raises:
        ScheduleError: some do not fit.
    """
    values = {**flatten(config), STEPS: steps}
    problems = []
    for check in SCHEDULE_CHECKS:
        conflict = check.rule(*(values[key] for key in check.keys))
        if conflict is not None:
            given = ", ".join(f"{key} {written(values[key])}" for key in check.keys if key != STEPS)
            problems.append(f"  {given}: {conflict.message}; valid: {conflict.valid}")
    if problems:
        epochs = written(values["training.epochs"])
        listed = "\n".join(problems)
        raise ScheduleError(
            f"training.epochs {epochs} of this data: {steps} steps, which these settings do not "
            f"fit\n{listed}\nor more epochs"
        )


def depends_on_steps(config: Stage) -> bool:
    """Whether a run has settings that can fail to fit its steps, and no number of steps."""
    values = flatten(config)
    if values[STEPS] is not None:
        return False
    return values["optimizer.warmup_steps"] > 0 or values["policy.kind"] == "distillm"
