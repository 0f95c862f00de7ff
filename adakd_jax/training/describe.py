"""A run in words, for the model card of its student."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax

from adakd_jax.config.data import Source
from adakd_jax.config.distill import DistillConfig
from adakd_jax.config.models import LoraConfig
from adakd_jax.config.provenance import read_starts
from adakd_jax.eval.table import card_metrics
from adakd_jax.hf.card import CardFacts, model_card
from adakd_jax.hf.keymap import projections
from adakd_jax.hf.model_files import read_json
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.models.lora import split_adapters
from adakd_jax.training.prepare import Run
from adakd_jax.user_path import user_path

FILE = "student/training.json"


@dataclass(frozen=True)
class Story:
    """What is said of every student of a run, whichever checkpoint it comes from.

    Attributes:
        teacher: its name, as the run was given it; None without one.
        teacher_licence: its licence id; None if its files do not say.
        origin: where the student's weights started, one sentence.
        method: what was minimised and how, in sentences.
        data: what there was to learn from, in sentences.
        steps_per_epoch: optimizer steps that see all of it once.
    """

    teacher: str | None
    teacher_licence: str | None
    origin: str
    method: str
    data: str
    steps_per_epoch: int


def tell(run: Run) -> Story:
    """The story of a run, from its settings and data."""
    config, batches = run.config, run.batches
    report, length = batches.examples.report, batches.row_length
    rows = " or ".join(str(count * height) for count, height, _ in reversed(batches.shapes))
    return Story(
        teacher=_teacher_name(run),
        teacher_licence=_teacher_licence(run),
        origin=_origin(run.student, config.student.lora),
        method=f"{method_text(config.distill)}{_cached(run)} Packed rows a step: "
        f"{rows}, of {length} tokens; AdamW, peak learning rate "
        f"{config.optimizer.learning_rate:g}, {config.optimizer.schedule} schedule over "
        f"{batches.total_steps} steps.",
        data=f"Rows from {_source_text(config.data.train)}: {report.examples:,} examples of "
        f"{report.tokens:,} tokens, {report.response_tokens:,} of them response tokens; "
        f"prompt format: {config.data.template}.",
        steps_per_epoch=batches.steps_per_epoch,
    )


def _origin(student: Pretrained, lora: LoraConfig | None) -> str:
    started = f"The student started from {student.source.name}."
    if lora is None or student.config.lora is None:
        return started
    targeted = [p for p in projections(student.config) if p.paths[0] in student.config.lora.targets]
    return (
        f"{started} Low-rank adapters (LoRA, r {lora.rank}, α {lora.alpha:g}, dropout "
        f"{lora.dropout:g}) of {', '.join(each.module for each in targeted)} were trained; its own "
        f"weights, kept in {lora.base_dtype}, were not."
    )


def _source_text(source: Source) -> str:
    """The files or the name of a data set, and how it is read: `my_dataset (split train)`."""
    where, *how = source.model_dump(exclude={"kind"}, exclude_none=True).items()
    place = where[1] if isinstance(where[1], str) else ", ".join(where[1])
    return place + (f" ({', '.join(f'{key} {value}' for key, value in how)})" if how else "")


def _teacher_name(run: Run) -> str | None:
    if run.cache is not None:
        return run.cache.manifest.teacher
    return None if run.teaching is None else run.teaching.source.name


def _teacher_licence(run: Run) -> str | None:
    if run.cache is not None:
        return run.cache.manifest.licence
    return (run.teaching or run.student).source.licence


def write_story(run_dir: str, story: Story) -> None:
    """Keep the story in the run folder, for later exports."""
    file = user_path(run_dir) / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(story), indent=2, ensure_ascii=False))


def student_card(
    run_dir: str,
    student: Pretrained,
    step: int,
    measured: Mapping[str, Mapping[str, Any]],
    *,
    base: str | None = None,
) -> str:
    """The model card of a checkpoint.

    Args:
        run_dir: folder of the run; holds its story and the record of its starts.
        student: what is exported.
        step: the checkpoint's step.
        measured: column title → evaluation, as `Evaluation.to_dict` gives it; may be empty.
        base: what the student's adapters belong to, if the card is theirs alone.
    """
    parts = split_adapters(student.params)
    story = Story(**read_json(user_path(run_dir) / FILE))
    start = read_starts(run_dir)[-1]
    return model_card(
        CardFacts(
            name=_name(story),
            teacher=story.teacher,
            teacher_licence=story.teacher_licence,
            origin=story.origin,
            method=f"{story.method} These are the weights after step {step}.",
            data=f"{story.data} {step} steps are {step / story.steps_per_epoch:.2f} passes "
            "over them.",
            command=shlex.split(start["command"]),
            parameters=sum(leaf.size for leaf in jax.tree.leaves(parts[base is not None])),
            metrics=card_metrics(measured) if measured else None,
            versions={name: start["packages"][name] for name in _VERSIONS},
            base=base,
        )
    )


def _cached(run: Run) -> str:
    if run.cache is None:
        return ""
    k = run.cache.manifest.form.k
    return f" Of the teacher, {k} tokens and the mass of all others were kept at every token."


def _name(story: Story) -> str:
    if story.teacher is None:
        return "Fine-tuned language model"
    return f"{story.teacher.rsplit('/', 1)[-1]}, distilled"


_VERSIONS: Sequence[str] = ("adakd_jax", "jax", "flax", "optax", "transformers")


def method_text(config: DistillConfig) -> str:
    """The loss in a sentence: the four slots, and the terms besides."""
    weights = [
        f"weight {_weight(config, key)} on {term}"
        for key, term, used in (
            ("kd", "distillation", config.has_kd),
            ("ce", "cross-entropy", config.has_ce),
            ("feature", "hidden states", config.has_features),
        )
        if used
    ]
    if not config.has_kd:
        kind = "Hidden states are compared" if config.has_features else "Supervised fine-tuning"
        return f"{kind}: {', '.join(weights)}."
    slots = {
        "difficulty score": config.score,
        "token focus": config.focus,
        "temperature": config.temperature,
        "divergence": config.divergence,
    }
    parts = []
    for name, slot in slots.items():
        options = {key: value for key, value in slot.model_dump().items() if key != "kind"}
        listed = ", ".join(f"{key} {value}" for key, value in options.items())
        parts.append(f"{name} `{slot.kind}`" + (f" ({listed})" if listed else ""))
    return f"Token-adaptive distillation: {'; '.join([*parts, *weights])}."


def _weight(config: DistillConfig, term: str) -> str:
    start, end = getattr(config, f"{term}_weight"), getattr(config, f"{term}_weight_end")
    return f"{start:g}" if end is None else f"{start:g} to {end:g} ({config.weight_schedule})"
