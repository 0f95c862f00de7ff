"""Whose chat template a run uses, and the student's tokenizer as that template needs it."""

import copy
import dataclasses
import datetime
from typing import TypeVar

from rich.text import Text
from transformers import PreTrainedTokenizerFast

from adakd_jax.config import DataConfig, RunConfig
from adakd_jax.config.provenance import CONFIG_FILE, stored_config
from adakd_jax.console import Console
from adakd_jax.data.chat_render import ChatRenderer
from adakd_jax.data.templates import template_warning
from adakd_jax.hf.chat_template import ending_turns, with_template
from adakd_jax.hf.load import read_tokenizer
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.processes import first_number
from adakd_jax.user_path import user_path

Config = TypeVar("Config", bound=RunConfig)


def with_chat_template(
    config: DataConfig,
    student: Pretrained,
    teacher: PreTrainedTokenizerFast | None,
    console: Console,
) -> Pretrained:
    """The student with the chat template of its run, under `template: chat`; says whose it is.

    The tokens that end an assistant's turn in it end the student's answers from here on: in
    generation, and in what is exported; see `ending_turns`.

    Args:
      config: the settings of the data.
      student: the student; its tokenizer is copied where it changes.
      teacher: the teacher's tokenizer, None if there is no teacher or it has none.
      console: where choices and warnings are shown.

    Raises:
      ValueError: there is no such template; says what would be valid.
    """
    if student.tokenizer is None:
        return student
    if config.template != "chat":
        warning = template_warning(config.template, teacher or student.tokenizer)
        if warning is not None:
            console.print(Text("warning:", "yellow"), warning)
        return student
    told, note = with_template(student, config.chat, teacher)
    if note is not None:
        console.print(f"template {note}")
    return ending_turns(told, config.chat)


def teacher_tokenizer(
    config: RunConfig, teacher: Pretrained | None
) -> PreTrainedTokenizerFast | None:
    """The teacher's; of a teacher that only its cache stands for, if it can be reached."""
    if teacher is not None or config.teacher is None:
        return None if teacher is None else teacher.tokenizer
    try:
        return read_tokenizer(config.teacher.path, config.teacher.revision)
    except (OSError, ValueError):
        return None


def with_earlier_date(config: RunConfig) -> RunConfig:
    """The settings of a run with the date that its earlier starts wrote in prompts, if any."""
    file = user_path(config.run_dir) / CONFIG_FILE
    if config.data.chat.date is not None or not file.is_file():
        return config
    stored = stored_config(file, RunConfig)
    # Settings of another version are for `check_same_run` to tell.
    return _dated(config, stored.data.chat.date) if isinstance(stored, RunConfig) else config


def with_date(config: Config, student: Pretrained, earlier: str | None = None) -> Config:
    """The settings of a run with the date that its prompts have, if its template writes one.

    Args:
      config: the settings; a date that they give stands.
      student: with the run's template.
      earlier: the date in prompts that were written before, such as those of the teacher's cache;
        None: today's.

    Scope: all processes of a run call this, and get the same.
    """
    if not writes_date(student, config.data):
        return config
    here = datetime.date.fromisoformat(earlier) if earlier else datetime.date.today()
    return _dated(config, datetime.date.fromordinal(first_number(here.toordinal())).isoformat())


def writes_date(student: Pretrained, data: DataConfig) -> bool:
    """Whether prompts hold a date that the settings do not give."""
    if data.template != "chat" or data.chat.date is not None or student.tokenizer is None:
        return False
    return ChatRenderer(student.tokenizer, data.chat).has_date


def _dated(config: Config, date: str | None) -> Config:
    chat = config.data.chat.model_copy(update={"date": date})
    return config.model_copy(update={"data": config.data.model_copy(update={"chat": chat})})


def asking_alike(teacher: Pretrained, student: Pretrained, data: DataConfig) -> Pretrained:
    """A teacher that is to answer prompts, with the run's template where it has none of its own or
    the settings name one.
    """
    if data.template != "chat" or teacher.tokenizer is None or student.tokenizer is None:
        return teacher
    if data.chat.template is None and teacher.tokenizer.chat_template:
        return teacher
    tokenizer = copy.deepcopy(teacher.tokenizer)
    tokenizer.chat_template = student.tokenizer.chat_template
    return dataclasses.replace(teacher, tokenizer=tokenizer)
