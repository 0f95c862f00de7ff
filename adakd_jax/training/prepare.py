"""From settings to everything a run computes with: models, held-out rows and training batches."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from rich.console import Console

from adakd_jax.config import DataConfig, RunConfig, StudentCheckpoint, TeacherConfig
from adakd_jax.data.examples import Examples, encode_rows
from adakd_jax.data.loader import TrainingBatches
from adakd_jax.data.row_source import RowSource
from adakd_jax.data.sources import open_rows
from adakd_jax.data.split import hold_out
from adakd_jax.data.templates import template_warning
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.locate import ModelNotFoundError
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.hf.student import init_student
from adakd_jax.hf.tokenizer import check_same_tokens
from adakd_jax.models.config import ComputeDtype
from adakd_jax.training.architecture import check_architecture
from adakd_jax.training.optimizer import build_optimizer, learning_rate_schedule
from adakd_jax.training.step import StepParts


@dataclass(frozen=True)
class Run:
    """All that a run reads; the state that it writes is `TrainState`."""

    config: RunConfig
    teacher: Pretrained
    student: Pretrained
    batches: TrainingBatches
    held_out: RowSource | None

    def parts(self) -> StepParts:
        """The static half of the train step."""
        optimizer, distill = self.config.optimizer, self.config.distill
        return StepParts(
            distill=distill,
            optimizer=build_optimizer(optimizer, distill, self.batches.total_steps),
            schedule=learning_rate_schedule(optimizer, self.batches.total_steps),
            student=self.student.graphdef,
            teacher=self.teacher.graphdef,
            total_steps=self.batches.total_steps,
            average_decay=optimizer.average_decay,
        )


def prepare(config: RunConfig, console: Console) -> Run:
    """Load the models and prepare the data, saying what was found.

    Raises:
        ModelNotFoundError, WeightsError, MalformedRowsError, EmptyDataError, ValueError: what is
        wrong, and what would
            be valid.
    """
    console.print(f"loading  {config.teacher.path}", soft_wrap=True)
    teacher = load_teacher(config.teacher)
    student = init_student(config.student, teacher, jax.random.key(config.seed))
    if isinstance(config.student, StudentCheckpoint):
        check_architecture(config.student.architecture, student, "student")
        check_same_tokens(student, teacher)
    console.print(f"teacher  {describe(teacher)}\nstudent  {describe(student)}", soft_wrap=True)
    if note := vocabulary_note(student, teacher):
        console.print(note, soft_wrap=True)
    examples, held_out = _read_data(config.data, student, config.seed, console)
    batches = TrainingBatches(examples, config.data, config.training, config.seed)
    console.print(f"steps    {batches.total_steps} ({batches.steps_per_epoch} an epoch)")
    return Run(config, teacher, student, batches, held_out)


def load_teacher(config: TeacherConfig) -> Pretrained:
    """Load the teacher from `path`, or from `fallback` if that cannot be reached."""
    dtype = jnp.dtype(teacher_dtype(config))
    try:
        teacher = load_pretrained(config.path, dtype=dtype, revision=config.revision)
    except ModelNotFoundError:
        if config.fallback is None:
            raise
        teacher = load_pretrained(config.fallback, dtype=dtype)
    check_architecture(config.architecture, teacher, "teacher")
    return teacher


def teacher_dtype(config: TeacherConfig) -> ComputeDtype:
    """Precision of the teacher's weights and compute: the given one, or the one the platform is
    fast in.
    """
    return config.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")


def describe(model: Pretrained) -> str:
    """Name, size and shape of a model, in one line."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    config = model.config
    return (
        f"{model.source.name}: {parameters / 1e6:.1f}M parameters, {config.num_layers} layers, "
        f"width {config.embed_dim}, vocabulary {config.vocab_size:,}, {config.compute_dtype}"
    )


def vocabulary_note(student: Pretrained, teacher: Pretrained) -> str | None:
    """What is cut where two embeddings of one tokenizer are padded to different sizes."""
    sizes = sorted(model.config.vocab_size for model in (student, teacher))
    if sizes[0] == sizes[1]:
        return None
    return (
        f"vocabulary  embeddings of {sizes[0]:,} and {sizes[1]:,} tokens: the loss is over the "
        f"first {sizes[0]:,}, the rest is padding"
    )


def _read_data(
    config: DataConfig, student: Pretrained, seed: int, console: Console
) -> tuple[Examples, RowSource | None]:
    """Training examples, and the rows held out of them or given for validation."""
    if student.tokenizer is None:
        raise ValueError(f"{student.source.name} has no tokenizer; add its tokenizer.json")
    if warning := template_warning(config.template, student.tokenizer):
        console.print(f"[yellow]warning:[/] {warning}", soft_wrap=True)
    options = {
        "columns": config.columns,
        "on_error": config.on_error,
        "cache_dir": config.cache_dir,
    }
    rows = open_rows(config.train, max_rows=config.max_rows, **options)
    held_out = None
    if config.validation is not None:
        held_out = open_rows(config.validation, **options)
    elif config.validation_fraction > 0:
        kept, out = hold_out(len(rows), config.validation_fraction, seed)
        rows, held_out = rows.select(kept), rows.select(out)
    examples = encode_rows(
        rows,
        config.template,
        student.tokenizer,
        max_prompt_length=config.max_prompt_length,
        max_length=config.max_length,
        cache_dir=config.cache_dir,
    )
    console.print(
        f"data     {rows.report.summary()}\n         {examples.report.summary()}", soft_wrap=True
    )
    if held_out is not None:
        console.print(f"held out {len(held_out)} rows of {held_out.report.name}")
    return examples, held_out
