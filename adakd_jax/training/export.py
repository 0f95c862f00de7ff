"""Writes a run's student: a model that transformers loads, or an adapter that peft loads."""

from collections.abc import Mapping
from typing import Any, Literal

from etils import epath

from adakd_jax.config import RunConfig, StudentCheckpoint
from adakd_jax.hf.adapter import save_adapter
from adakd_jax.hf.card import loads_in_transformers
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.training.describe import student_card


def export_student(
    config: RunConfig,
    student: Pretrained,
    path: epath.PathLike,
    *,
    step: int,
    measured: Mapping[str, Mapping[str, Any]],
    form: Literal["merged", "adapter"],
    max_shard_size: str,
    run_dir: str | None = None,
) -> tuple[epath.Path, str]:
    """Export a student with its model card.

    Args:
        config: settings of its run.
        student: its weights as they are exported; adapters, if it has any, not merged.
        path: the folder to make.
        step: of its checkpoint.
        measured: for the card, see `student_card`.
        form: of a student with adapters: the whole model with them merged in, or they alone.
        max_shard_size: of one safetensors file of a whole model.
        run_dir: folder of the run, if it is not where its settings say.

    Returns:
        The folder, and the expression that loads it.

    Raises:
        FileExistsError: something other than an earlier export is in its place.
        ValueError: an adapter is asked for, and there is none, or no model that it belongs to.
    """
    run_dir = run_dir or config.run_dir
    if form == "merged":
        card = student_card(run_dir, student, step, measured)
        folder = save_pretrained(student, path, max_shard_size=max_shard_size, card=card)
        return folder, f'transformers.AutoModelForCausalLM.from_pretrained("{folder}")'
    source = config.student
    if source.lora is None or not isinstance(source, StudentCheckpoint):
        lora = "null" if source.lora is None else "given"
        raise ValueError(
            f"{run_dir}: only a run with student.lora and student.kind checkpoint has an adapter "
            f"to export; its student.lora is {lora}, its kind {source.kind}; valid: merged"
        )
    card = student_card(run_dir, student, step, measured, base=source.path)
    known = source.path if loads_in_transformers(source.path) else None
    folder = save_adapter(student, path, base=known, revision=source.revision, card=card)
    return folder, f'peft.PeftModel.from_pretrained(MODEL, "{folder}"), MODEL being {source.path}'
