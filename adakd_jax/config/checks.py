"""Combinations of settings that cannot work, each with what would be valid instead.

A rule sees only values that are valid on their own, and returns None when they agree. `Stage` runs
the rules of a stage whenever that stage is built, in Python as on the command line.
"""

import os

from adakd_jax.config.distill import DistillConfig
from adakd_jax.config.schedules import SCHEDULE_CHECKS
from adakd_jax.config.stage import Check, Conflict, stages_in
from adakd_jax.user_path import is_remote, user_path

_RANKED = ("top_ratio", "latf")
_FROM_TEACHER = ("layers", "pruned")
_OF_LOGITS = ("dtkd", "logit_standardization")


def _exactly_one(first: str, second: str) -> Check:
    def rule(a: object, b: object) -> Conflict | None:
        if (a is None) != (b is None):
            return None
        given = "neither" if a is None else "both"
        return Conflict(
            f"give exactly one of {first} and {second}, not {given}",
            "one of the two; the other one absent or null",
        )

    return Check((first, second), rule)


def _micro_batches_divide(micro_batch_rows: int | None, batch_rows: int | None) -> Conflict | None:
    if micro_batch_rows is None or batch_rows is None or batch_rows % micro_batch_rows == 0:
        return None
    divisors = [str(n) for n in range(1, batch_rows + 1) if batch_rows % n == 0]
    return Conflict(
        f"{micro_batch_rows} micro-batch rows do not divide a step's {batch_rows} rows",
        f"micro_batch_rows null or one of {', '.join(divisors)}",
    )


def _prompt_leaves_room(max_prompt_length: int, max_length: int) -> Conflict | None:
    if max_prompt_length < max_length:
        return None
    return Conflict(
        "a prompt may fill the whole row and leave no room for an answer",
        f"max_prompt_length below {max_length}, or max_length above {max_prompt_length}",
    )


def _one_validation_source(fraction: float, validation: object) -> Conflict | None:
    if fraction == 0 or validation is None:
        return None
    return Conflict(
        "held-out rows are given twice: a share of the training rows, and rows of their own",
        "validation_fraction 0, or validation null",
    )


def _learning_rate_falls(final: float, peak: float, schedule: str) -> Conflict | None:
    if final <= peak or schedule == "constant":
        return None
    return Conflict(
        "the final learning rate is above the peak",
        f"final_learning_rate from 0 to {peak:g}, or schedule constant",
    )


def _ranking_needs_a_score(focus: str, score: str) -> Conflict | None:
    if focus not in _RANKED or score != "uniform":
        return None
    scores = stages_in(DistillConfig.model_fields["score"].annotation)
    names = ", ".join(name for name in scores if name != "uniform")
    return Conflict(
        "equal scores cannot be ranked: the kept tokens would merely be the first ones",
        f"distill.score.kind one of {names}; or distill.focus.kind all",
    )


def _some_loss(*weights: float | None) -> Conflict | None:
    if any(weights):
        return None
    return Conflict("the loss is always 0", "kd_weight, ce_weight or feature_weight above 0")


def _teacher_for_distillation(teacher: object, distill: DistillConfig) -> Conflict | None:
    if teacher is not None or not distill.has_teacher:
        return None
    return Conflict(
        "there is no teacher to distil from",
        "teacher.path; or, to fine-tune without one, distill.kd_weight 0 and distill.ce_weight 1",
    )


def _teacher_for_layers(teacher: object, student: str) -> Conflict | None:
    if teacher is not None or student not in _FROM_TEACHER:
        return None
    return Conflict(
        "there is no teacher that the student could be taken from",
        "teacher.path, or student.kind checkpoint",
    )


def _layers_in_full_precision(quantization: str | None, student: str) -> Conflict | None:
    if quantization is None or student not in _FROM_TEACHER:
        return None
    return Conflict(
        "the student would start from the teacher's rounded weights",
        "teacher.quantization null, or student.kind checkpoint",
    )


def _adapter_in_full_precision(quantization: str | None, adapter: str | None) -> Conflict | None:
    if quantization is None or adapter is None:
        return None
    return Conflict(
        "an adapter cannot be merged into rounded weights",
        "teacher.quantization null; or a teacher.path that has the adapter merged in",
    )


def _something_to_evaluate(
    every_steps: int | None, validation: object, fraction: float
) -> Conflict | None:
    if every_steps is None or validation is not None or fraction > 0:
        return None
    return Conflict(
        "there are no held-out rows to evaluate",
        "data.validation, or data.validation_fraction above 0; or evaluation.every_steps null",
    )


def _evaluation_for_distillm(policy: str, every_steps: int | None) -> Conflict | None:
    if policy != "distillm" or every_steps is not None:
        return None
    return Conflict(
        "distillm uses the student's responses only when held-out NLL rises, which is never seen",
        "evaluation.every_steps a number of steps; or policy.kind gkd",
    )


def _prompts_for_policy(policy: str, template: str) -> Conflict | None:
    if policy == "offline" or template != "text":
        return None
    return Conflict("rows of plain text have no prompts to answer", "data.template alpaca or chat")


def _teacher_that_writes(policy: str, teacher: object) -> Conflict | None:
    if policy != "seqkd" or teacher is not None:
        return None
    return Conflict("there is no teacher to write the responses", "teacher.path")


def _cache_holds_dataset_responses(cache: str | None, policy: str) -> Conflict | None:
    if cache is None or policy == "offline":
        return None
    return Conflict(
        f"a cached teacher has seen the data set's responses, not those of {policy}",
        "policy.kind offline; or teacher.cache null",
    )


def _cache_holds_distributions(cache: str | None, distill: DistillConfig) -> Conflict | None:
    if cache is None or (distill.has_kd and not distill.has_features):
        return None
    if distill.has_features:
        return Conflict(
            "a cache holds no hidden states of the teacher to compare with",
            "distill.feature_weight 0 and feature_weight_end null; or teacher.cache null",
        )
    return Conflict("nothing is learned from the cache", "kd_weight above 0; or teacher.cache null")


def _cache_holds_probabilities(cache: str | None, temperature: str) -> Conflict | None:
    if cache is None or temperature not in _OF_LOGITS:
        return None
    return Conflict(
        f"{temperature} looks at the logits of the whole vocabulary, and a cache holds "
        "probabilities of a few tokens",
        "distill.temperature.kind one of fixed, idts, entropy, ctkd; or teacher.cache null",
    )


def _export_beside_run(export: str | None, run_dir: str) -> Conflict | None:
    if export is None or _normalised(export) != _normalised(run_dir):
        return None
    return Conflict(
        "the exported model would mix with the run's own files",
        "another folder, or null for RUN_DIR/export",
    )


def _adapter_of_a_base(form: str, lora: object, student: str) -> Conflict | None:
    if form == "merged":
        return None
    if lora is None:
        return Conflict("there is no adapter to export", "export.lora merged, or student.lora")
    if student == "checkpoint":
        return None
    return Conflict(
        f"an adapter needs the model it belongs to, but a student of kind {student} starts from "
        "weights that stand in no folder",
        "export.lora merged, or student.kind checkpoint",
    )


def _normalised(path: str) -> str:
    if is_remote(path):
        return path.rstrip("/")
    return os.path.abspath(user_path(path))


def _revision_of_a_hub_id(revision: str | None, path: str) -> Conflict | None:
    is_file = path.startswith(("package:", "/", "./", "../", "~")) or path.endswith(".gguf")
    if revision is None or not (is_file or is_remote(path)):
        return None
    return Conflict("only hub models have revisions", "revision null, or path a hub id OWNER/NAME")


DATA_CHECKS = (
    Check(("max_prompt_length", "max_length"), _prompt_leaves_room),
    Check(("validation_fraction", "validation"), _one_validation_source),
)
OPTIMIZER_CHECKS = (
    Check(("final_learning_rate", "learning_rate", "schedule"), _learning_rate_falls),
)
TRAINING_CHECKS = (
    _exactly_one("steps", "epochs"),
    _exactly_one("batch_rows", "batch_examples"),
    Check(("micro_batch_rows", "batch_rows"), _micro_batches_divide),
)
RUN_CHECKS = (
    Check(("distill.focus.kind", "distill.score.kind"), _ranking_needs_a_score),
    Check(
        tuple(
            f"distill.{term}_weight{end}"
            for term in ("kd", "ce", "feature")
            for end in ("", "_end")
        ),
        _some_loss,
    ),
    Check(("teacher", "distill"), _teacher_for_distillation),
    Check(("teacher", "student.kind"), _teacher_for_layers),
    Check(("teacher.quantization", "student.kind"), _layers_in_full_precision),
    Check(("teacher.quantization", "teacher.adapter"), _adapter_in_full_precision),
    *SCHEDULE_CHECKS,
    Check(
        ("evaluation.every_steps", "data.validation", "data.validation_fraction"),
        _something_to_evaluate,
    ),
    Check(("policy.kind", "evaluation.every_steps"), _evaluation_for_distillm),
    Check(("policy.kind", "data.template"), _prompts_for_policy),
    Check(("policy.kind", "teacher"), _teacher_that_writes),
    Check(("teacher.cache", "policy.kind"), _cache_holds_dataset_responses),
    Check(("teacher.cache", "distill"), _cache_holds_distributions),
    Check(("teacher.cache", "distill.temperature.kind"), _cache_holds_probabilities),
    Check(("export.path", "run_dir"), _export_beside_run),
    Check(("export.lora", "student.lora", "student.kind"), _adapter_of_a_base),
    Check(("teacher.revision", "teacher.path"), _revision_of_a_hub_id),
    Check(("student.revision", "student.path"), _revision_of_a_hub_id),
)
