"""What the runs of a study share, each made once: teacher, students, data, compiled steps."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from adakd_jax.config import Columns, RunConfig, StudentRandom
from adakd_jax.config.schedules import check_schedules
from adakd_jax.config.suites import SuiteName
from adakd_jax.console import Console
from adakd_jax.data.cache import content_key
from adakd_jax.data.loader import TrainingBatches
from adakd_jax.eval.held_out_sets import open_sets
from adakd_jax.eval.suite import Evaluation, HeldOut, evaluate
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.training.chat import with_chat_template, writes_date
from adakd_jax.training.data import read_data
from adakd_jax.training.inputs import (
    file_inputs,
    told_of_key,
    told_of_rows,
    told_of_tokenizer,
)
from adakd_jax.training.loop import CompiledSteps
from adakd_jax.training.measure import held_out_of
from adakd_jax.training.models import describe, load_student, load_teacher, vocabulary_note
from adakd_jax.training.prepare import Run
from adakd_jax.training.run import compiled_step
from adakd_jax.training.state import TrainState
from adakd_jax.training.step import StepParts


class Shared:
    """Loads and prepares everything that all methods have in common.

    Attributes:
        teacher: of all methods, and what students are compared with.
        data: names the content of rows and models.
        inputs: the digests of rows and tokenizer, as `Inputs` compares them.
        held_out: rows that all students are measured on; None if there are none.
        suites: the same by name of other sets.
    """

    def __init__(
        self,
        config: RunConfig,
        console: Console,
        suites: Sequence[SuiteName] = (),
        suite_data: str | None = None,
    ):
        """Load the teacher and read the data of `config`, saying what was found.

        Args:
            config: settings that all runs have in common.
            console: where to show what was found.
            suites: other sets to measure students on.
            suite_data: where these are, as for `open_sets`.

        Raises:
            ModelNotFoundError, WeightsError, MalformedRowsError, EmptyDataError, ValueError: as
            `adakd_jax.training.prepare.prepare`.
        """
        assert config.teacher is not None  # a plan without a teacher is refused
        console.print(f"loading  {config.teacher.path}", soft_wrap=True)
        self.teacher = load_teacher(config.teacher)
        self._console = console
        self._students: dict[str, Pretrained] = {}
        self._steps: dict[str, CompiledSteps] = {}
        student = self.student(config)
        console.print(
            f"teacher  {describe(self.teacher)}\nstudent  {describe(student)}", soft_wrap=True
        )
        if note := vocabulary_note(student, self.teacher):
            console.print(note, soft_wrap=True)
        # One split for all seeds, so that all students are measured on the same rows.
        self._examples, self._rows = read_data(config.data, student, 0, console)
        report = self._examples.report
        self.data: dict[str, Any] = {
            "examples": report.examples,
            "tokens": report.tokens,
            "response_tokens": report.response_tokens,
            "held_out": None if self._rows is None else self._rows.key,
            "rows": self._examples.rows_key,
            "models": content_key(files=file_inputs(config)),
        }
        self.inputs = {
            "training rows": told_of_key(self._examples.rows_key),
            "held-out rows": told_of_rows(self._rows),
            "tokenizer": told_of_tokenizer(student),
        }
        self.held_out = held_out_of(self.run(config))
        self.suites = self._hold_suites(config, suites, suite_data)

    def _hold_suites(
        self, config: RunConfig, suites: Sequence[SuiteName], data: str | None
    ) -> dict[str, HeldOut]:
        found: dict[str, HeldOut] = {}
        options: Any = {"columns": Columns(), "cache_dir": config.data.cache_dir}
        for each in open_sets(suites, data, **options) if suites else ():
            run = dataclasses.replace(self.run(config), held_out=each.rows)
            held_out = held_out_of(run)
            assert held_out is not None  # there are rows, and students have tokenizers
            found[each.name] = held_out
            self.data[f"rows of {each.name}"] = each.rows.key
            self._console.print(f"suite    {len(each.rows)} rows of {each.title}")
        return found

    def student(self, config: RunConfig) -> Pretrained:
        """The untrained student of a run; its weights are shared and must not be donated."""
        key = config.student.model_dump_json()
        if isinstance(config.student, StudentRandom):
            key += f" seed {config.seed}"
        if key not in self._students:
            self._students[key] = self._load(config)
        return self._students[key]

    def _load(self, config: RunConfig) -> Pretrained:
        student = load_student(config, self.teacher)
        student = with_chat_template(config.data, student, self.teacher.tokenizer, self._console)
        if writes_date(student, config.data):
            raise ValueError(
                "the chat template writes the date of the day, so that the runs of a study would "
                "have other prompts on other days; valid: data.chat.date, e.g. 2026-01-31"
            )
        return student

    def batches(self, config: RunConfig) -> TrainingBatches:
        """The batches of a run.

        Raises:
            ScheduleError: its settings do not fit the steps that its epochs make.
        """
        batches = TrainingBatches(self._examples, config.data, config.training, config.seed)
        check_schedules(config, batches.total_steps)
        return batches

    def run(self, config: RunConfig) -> Run:
        """All that a run reads; its student's weights are the shared ones."""
        return Run(
            config=config,
            teacher=self.teacher,
            student=self.student(config),
            batches=self.batches(config),
            held_out=self._rows,
        )

    def trainable(self, config: RunConfig) -> Run:
        """The same with a student of its own, whose weights may be donated."""
        run = self.run(config)
        params = jax.tree.map(jnp.copy, run.student.params)
        return dataclasses.replace(run, student=dataclasses.replace(run.student, params=params))

    def compiled_step(
        self, run: Run, parts: StepParts, state: TrainState, console: Console
    ) -> CompiledSteps:
        """The train step, compiled by the first run that has the same: seeds do not differ."""
        config = run.config
        key = json.dumps(
            [
                config.distill.model_dump(mode="json"),
                config.optimizer.model_dump(mode="json"),
                config.student.model_dump(mode="json"),
                parts.total_steps,
                run.batches.shapes,
            ]
        )
        if key not in self._steps:
            self._steps[key] = compiled_step(run, parts, state, console)
        return self._steps[key]

    def evaluate(
        self, config: RunConfig, params: Any, console: Console, suite: str | None = None
    ) -> Evaluation:
        """Measure a student of a run on the held-out rows, or on a suite, with `params` as its
        weights.
        """
        held_out = self.held_out if suite is None else self.suites[suite]
        assert held_out is not None  # a plan without held-out rows is refused
        return evaluate(
            self.student(config),
            held_out,
            config.evaluation.generation,
            params=params,
            teacher=self.teacher,
            seed=config.seed,
            console=console,
        )
