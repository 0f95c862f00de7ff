"""Whether both models of a run can read and write as long texts as its settings ask for."""

from adakd_jax.config import DistiLlm, Gkd, RunConfig, SeqKd
from adakd_jax.config.training import GenerationConfig
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.positions import Reads, check_positions, position_remark


def check_lengths(
    config: RunConfig, teacher: DecoderConfig | None, student: DecoderConfig
) -> list[str]:
    """Refuse settings of lengths that a model has no positions for.

    Args:
        config: all settings.
        teacher: None if it is not loaded.
        student: the student.

    Returns:
        A remark on each model that is to read more than it was made for.

    Raises:
        TooLongError: rows, or prompts with their answers, are longer than learned positions.
    """
    models = [("the student", student, _of_student(config))]
    if teacher is not None:
        models.insert(0, ("the teacher", teacher, _of_teacher(config)))
    for who, model, reads in models:
        check_positions(model, reads, who)
    remarks = (position_remark(model, reads, who) for who, model, reads in models)
    return [remark for remark in remarks if remark is not None]


def _of_student(config: RunConfig) -> list[Reads]:
    reads = [_rows(config)]
    if _answers(config):
        reads.append(_with_answer(config, "evaluation", config.evaluation.generation))
    if isinstance(config.policy, Gkd | DistiLlm):
        reads.append(_with_answer(config, "policy", config.policy.generation))
    return reads


def _of_teacher(config: RunConfig) -> list[Reads]:
    reads = [_rows(config)]
    if _answers(config) and config.evaluation.before and config.evaluation.show_examples:
        reads.append(_with_answer(config, "evaluation", config.evaluation.generation))
    if isinstance(config.policy, SeqKd):
        reads.append(_with_answer(config, "policy", config.policy.generation))
    return reads


def _rows(config: RunConfig) -> Reads:
    return Reads("data.max_length", config.data.max_length)


def _with_answer(config: RunConfig, stage: str, generation: GenerationConfig) -> Reads:
    return Reads(
        f"data.max_prompt_length + {stage}.generation.max_new_tokens",
        config.data.max_prompt_length + generation.max_new_tokens,
    )


def _answers(config: RunConfig) -> bool:
    """Whether held-out questions are answered."""
    held_out = config.data.validation is not None or config.data.validation_fraction > 0
    return held_out and config.data.template != "text" and config.evaluation.generate_examples > 0
