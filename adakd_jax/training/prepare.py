"""From settings to everything a run computes with: models, held-out rows and training batches."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array

from adakd_jax.axes import batch_axes_of
from adakd_jax.config import RunConfig, SeqKd, StudentCheckpoint
from adakd_jax.config.schedules import check_schedules
from adakd_jax.console import Console
from adakd_jax.data.examples import Examples
from adakd_jax.data.loader import TrainingBatches
from adakd_jax.data.row_source import RowSource
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.models.lora import combine, split_adapters
from adakd_jax.sharding import (
    entered,
    make_mesh,
    row_shards,
    rows_held,
    rules_of,
    shardings_like,
)
from adakd_jax.teacher_cache.manifest import data_settings, date_of
from adakd_jax.teacher_cache.reading import Taught, TeacherCache
from adakd_jax.training.cached import open_cache, told_of
from adakd_jax.training.chat import (
    asking_alike,
    teacher_tokenizer,
    with_chat_template,
    with_date,
)
from adakd_jax.training.checks import check_examples, check_models
from adakd_jax.training.data import read_data
from adakd_jax.training.finite import check_finite
from adakd_jax.training.inputs import (
    Inputs,
    file_inputs,
    teacher_key,
    told_of_key,
    told_of_rows,
    told_of_tokenizer,
)
from adakd_jax.training.learned import initial_learned
from adakd_jax.training.models import describe, load_student, load_teacher, vocabulary_note
from adakd_jax.training.parts import StepParts, step_parts
from adakd_jax.training.state import TrainState, evaluated_params


@dataclass(frozen=True)
class Run:
    """All that a run reads; the state that it writes is `TrainState`.

    Of a run that is `resumed`, the student's trained weights are shapes: a checkpoint has them.
    """

    config: RunConfig
    teacher: Pretrained | None
    student: Pretrained
    batches: TrainingBatches
    held_out: RowSource | None
    mesh: Mesh | None = None
    cache: TeacherCache | None = None
    resumed: bool = False

    @property
    def teaching(self) -> Pretrained | None:
        """The teacher if training needs its weights; evaluation may compare with it in any case."""
        return self.teacher if self.config.distill.has_teacher else None

    @property
    def teaching_params(self) -> Any:
        """The weights that the train step is given besides its state."""
        return None if self.teaching is None else self.teaching.params

    @property
    def trained(self) -> Any:
        """The student's weights that training starts from: all, or its adapters alone."""
        if self.student.config.lora is None:
            return self.student.params
        return split_adapters(self.student.params)[1]

    @property
    def base(self) -> Any:
        """The student's frozen weights, an argument of every step; None if all are trained."""
        if self.student.config.lora is None:
            return None
        return split_adapters(self.student.params)[0]

    def evaluated(self, state: TrainState) -> Any:
        """The whole student as it is evaluated and exported: with averages, where there are any."""
        return combine(self.base, evaluated_params(state))

    def parts(self) -> StepParts:
        """The static half of the train step."""
        return step_parts(
            self.config,
            self.batches.total_steps,
            (self.student.config, self.student.graphdef),
            None if self.teaching is None else (self.teaching.config, self.teaching.graphdef),
            batch_axes=() if self.mesh is None else batch_axes_of(self.mesh),
            cache=self.cache,
        )

    def shardings(self, state: Any) -> Any:
        """Of a state of this run, or of a part of it; None without a mesh."""
        if self.mesh is None:
            return None
        return shardings_like(state, self.mesh, rules_of(self.config.mesh, "student"))

    def learned(self) -> dict[str, Array]:
        """What the method trains beside the student, as it starts."""
        widths = [model.config.embed_dim for model in (self.student, self.teaching or self.student)]
        key = jax.random.fold_in(jax.random.key(self.config.seed), 1)
        return initial_learned(self.config.distill, widths[0], widths[1], key)


def prepare(
    config: RunConfig, console: Console, *, resumed: bool = False, inputs: Inputs | None = None
) -> Run:
    """Load the models and prepare the data, saying what was found.

    With `teacher.cache` the teacher is not loaded; but for its layers or its tokenizer, if the
    student takes those, and then let go. A run that is `resumed` needs no weights of the student
    but those under its adapters. Files, rows and tokenizer are compared with those of `inputs`.

    Raises:
        ModelNotFoundError, ModelFileError, WeightsError, NonFiniteWeightsError, TooLongError,
        UnknownTokensError, MalformedRowsError, EmptyDataError, ScheduleError, OtherInputsError,
        ValueError: what is wrong, and what would be valid.
    """
    cache = open_cache(config)
    mesh = make_mesh(config.mesh)
    for remark in check_models(config, mesh):
        console.print(f"note     {remark}", soft_wrap=True)
    if inputs is not None:
        inputs.check(file_inputs(config))
    if mesh is not None:
        console.print("mesh     " + ", ".join(f"{axis} {n}" for axis, n in mesh.shape.items()))
    # A cached teacher is there for what the student takes of it: if that is saved, no weights.
    needed = cache is None or not resumed or config.student.lora is not None
    teacher = _loaded_teacher(config, mesh, console, weights=needed)
    student = load_student(config, teacher, mesh, "frozen" if resumed else "all", console)
    own = teacher_tokenizer(config, teacher)
    student = with_chat_template(config.data, student, own, console)
    config = with_date(config, student, None if cache is None else date_of(cache.path))
    if isinstance(config.student, StudentCheckpoint) and not resumed:
        check_finite(student, "student")
    teacher = teacher if cache is None else None
    _tell_models(config, student, teacher, cache, console)
    writer = None if teacher is None else asking_alike(teacher, student, config.data)
    rewrite = functools.partial(_rewritten, config, writer, mesh, console)
    examples, held_out = _read_data(config, student, console, rewrite, inputs)
    check_examples(config, examples, student, teacher, cache)
    batches = _batches(config, examples, mesh, cache, console)
    check_schedules(config, batches.total_steps)
    return Run(config, teacher, student, batches, held_out, mesh, cache, resumed)


def _tell_models(
    config: RunConfig,
    student: Pretrained,
    teacher: Pretrained | None,
    cache: TeacherCache | None,
    console: Console,
) -> None:
    if cache is not None:
        console.print(f"teacher  {told_of(cache, config)}", soft_wrap=True)
    if teacher is not None:
        console.print(f"teacher  {describe(teacher)}", soft_wrap=True)
    console.print(f"student  {describe(student)}", soft_wrap=True)
    if teacher is not None and (note := vocabulary_note(student, teacher)):
        console.print(note, soft_wrap=True)


def _batches(
    config: RunConfig,
    examples: Examples,
    mesh: Mesh | None,
    cache: TeacherCache | None,
    console: Console,
) -> TrainingBatches:
    """The batches of all steps, and how many there are and how large."""
    batches = TrainingBatches(
        examples,
        config.data,
        config.training,
        config.seed,
        row_multiple=row_shards(mesh),
        rows_held=functools.partial(rows_held, mesh),
        taught=None if cache is None else Taught(cache, examples, data_settings(config)).rows,
    )
    console.print(f"steps    {batches.total_steps} ({batches.steps_per_epoch} an epoch)")
    if len(batches.shapes) > 1:
        sizes = ", ".join(f"{count} × {rows}" for count, rows, _ in batches.shapes)
        console.print(
            f"rows     {sizes} a step, as its examples need ({batches.fill:.0%} full); each "
            "compiled once",
            soft_wrap=True,
        )
    return batches


def _loaded_teacher(
    config: RunConfig, mesh: Mesh | None, console: Console, *, weights: bool
) -> Pretrained | None:
    if config.teacher is None or not config.loads_teacher:
        return None
    console.print(f"loading  {config.teacher.path}", soft_wrap=True)
    rules = rules_of(config.mesh, "teacher")
    teacher = load_teacher(config.teacher, mesh, rules, weights=weights)
    if weights:
        check_finite(teacher, "teacher")
    return teacher


def _read_data(
    config: RunConfig,
    student: Pretrained,
    console: Console,
    rewrite: Callable[[RowSource], RowSource],
    inputs: Inputs | None,
) -> tuple[Examples, RowSource | None]:
    """Training examples and held-out rows, compared with those that the run began with."""

    def checked(rows: RowSource) -> RowSource:
        if inputs is not None:  # before a teacher answers them
            inputs.check(
                {"training rows": told_of_rows(rows), "tokenizer": told_of_tokenizer(student)}
            )
        return rewrite(rows)

    examples, held_out = read_data(config.data, student, config.seed, console, checked)
    if inputs is not None:
        found = {"held-out rows": told_of_rows(held_out)}
        if isinstance(config.policy, SeqKd):
            found["teacher's answers"] = told_of_key(examples.rows_key)
        inputs.check(found)
    return examples, held_out


def _rewritten(
    config: RunConfig,
    teacher: Pretrained | None,
    mesh: Mesh | None,
    console: Console,
    rows: RowSource,
) -> RowSource:
    """The training rows, under `seqkd` with the teacher's answers."""
    if teacher is None or config.teacher is None or not isinstance(config.policy, SeqKd):
        return rows
    # Only who needs it waits for its import.
    from adakd_jax.policies.seqkd import teacher_written

    with entered(mesh):
        return teacher_written(
            rows,
            teacher,
            config.policy,
            config.data,
            weights=teacher_key(config.teacher),
            seed=config.seed,
            console=console,
        )
