"""The command that looks at a run's teacher and tries smaller models."""

import functools
import json
from collections.abc import Sequence

from rich.table import Table

from adakd_jax.axes import TokenBatch
from adakd_jax.config import StudentPruned
from adakd_jax.config.prune import PruneCommand
from adakd_jax.console import Console
from adakd_jax.data.progress import track
from adakd_jax.eval.suite import hold_ready
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.hf.student_config import can_keep
from adakd_jax.pruning.calibration import calibration_batches
from adakd_jax.pruning.candidates import Candidate, Trials, seconds_a_token
from adakd_jax.pruning.importance import Importance, measure_importance
from adakd_jax.pruning.removal import greedy_removal
from adakd_jax.reports.page import write
from adakd_jax.reports.pruning import as_values, candidate_table, render_pruning
from adakd_jax.sharding import entered, make_mesh, row_shards, rules_of
from adakd_jax.training.chat import with_chat_template, with_date
from adakd_jax.training.data import read_data
from adakd_jax.training.finite import check_finite
from adakd_jax.training.models import describe, load_teacher
from adakd_jax.user_path import user_path
from adakd_jax.whole_file import write_whole

FILE = "pruning.html"
_PROMPT = 64  # tokens of the prompt that answers are timed with


def report_pruning(config: PruneCommand, console: Console | None = None) -> list[Candidate]:
    """Look at the teacher, try smaller models, print a table and write a page.

    Raises:
        ModelNotFoundError, DataNotFoundError, ValueError: what is wrong, and what would be valid.
    """
    console = console or Console()
    assert config.teacher is not None  # a check of the settings
    mesh = make_mesh(config.mesh)
    console.print(f"loading  {config.teacher.path}", soft_wrap=True)
    teacher = load_teacher(config.teacher, mesh, rules_of(config.mesh, "teacher"))
    check_finite(teacher, "teacher")
    console.print(f"teacher  {describe(teacher)}", soft_wrap=True)
    calibration, held_out = _rows(config, teacher, row_shards(mesh), console)
    with entered(mesh):
        importance = measure_importance(teacher, calibration)
        makes_a_model = functools.partial(can_keep, teacher.source.hf_config)
        removed = []
        if config.rounds:
            removed = greedy_removal(teacher, calibration, config.rounds, makes_a_model)
        _tell_layers(importance, console)
        trials = Trials(
            teacher, importance, calibration, held_out, [each.layer for each in removed]
        )
        seconds = seconds_a_token(teacher, calibration[0].tokens[0, :_PROMPT].tolist())
        tried = trials.try_each(config.of, config.shares, seconds)
        count = len(config.of) * len(config.shares)
        candidates = [trials.whole(seconds), *track(tried, "trying smaller models", count)]
    console.print(_table(candidates))
    page = render_pruning(teacher.source.name, importance, removed, candidates)
    path = write(page, config.output or f"{config.run_dir.rstrip('/')}/{FILE}")
    numbers = as_values(importance, removed, candidates)
    write_whole(user_path(f"{path}.json"), json.dumps(numbers, indent=2) + "\n")
    console.print(f"written: {path} and its numbers, {path}.json", soft_wrap=True)
    return candidates


def _rows(
    config: PruneCommand, teacher: Pretrained, shards: int, console: Console
) -> tuple[list[TokenBatch], Sequence[TokenBatch]]:
    """Packed training rows to look at, and held-out ones to measure on."""
    teacher = with_chat_template(config.data, teacher, None, console)
    data = with_date(config, teacher).data
    examples, rows = read_data(data, teacher, config.seed, console)
    student = config.student
    count = student.calibration_rows if isinstance(student, StudentPruned) else None
    count = count or StudentPruned.model_fields["calibration_rows"].default
    calibration = calibration_batches(examples, data.max_length, count)
    if rows is None or teacher.tokenizer is None:
        raise ValueError(
            "there are no held-out rows to measure smaller models on; valid: data.validation, or "
            "data.validation_fraction above 0"
        )
    held_out = hold_ready(
        rows,
        teacher.tokenizer,
        template=data.template,
        max_length=data.max_length,
        max_prompt_length=data.max_prompt_length,
        batch_rows=-(-config.evaluation.batch_rows // shards) * shards,
        max_examples=config.evaluation.max_examples,
        generate_examples=0,
        chat=data.chat,
        on_error=data.on_error,
        cache_dir=data.cache_dir,
    )
    return calibration, held_out.batches


def _tell_layers(importance: Importance, console: Console) -> None:
    order = importance.influence.argsort(kind="stable")
    told = ", ".join(f"{n} ({importance.influence[n]:.3f})" for n in order)
    console.print(
        f"layers   by influence, the least first, on {importance.tokens:,} tokens: {told}",
        soft_wrap=True,
    )


def _table(candidates: Sequence[Candidate]) -> Table:
    numbers = candidate_table(candidates)
    table = Table(title="smaller models, before any training", title_justify="left")
    for place, title in enumerate(numbers.titles):
        table.add_column(title, justify="right" if place else "left")
    for name, cells in numbers.rows:
        table.add_row(name, *cells)
    return table
