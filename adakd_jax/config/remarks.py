"""What a run's settings leave without effect."""

from adakd_jax.config.stage import Stage, flatten


def remarks(config: Stage) -> list[str]:
    """One line for each: no mistakes, but worth saying."""
    values = flatten(config)
    found = []
    if values["data.validation"] is None and values["data.validation_fraction"] == 0:
        found.append(
            "no held-out rows: nothing is evaluated, and no best checkpoint is kept "
            "(give data.validation or data.validation_fraction)"
        )
    elif values["data.template"] == "text" and values["evaluation.generate_examples"] > 0:
        found.append("data.template text has no prompts: no answers are generated")
    if values["teacher"] is not None and not values["distill"].has_teacher:
        found.append(
            "distill.kd_weight 0: the teacher does not teach, it is only compared with; this is "
            "supervised fine-tuning (teacher null loads none)"
        )
    if values.get("teacher.cache") is not None:
        found.append(
            "teacher.cache: the teacher is not there to compare with, so evaluations have no KL; "
            "measure the finished student with adakd_jax.evaluate --teacher"
        )
    return found
