"""Whose template a run uses, how its answers end, and which date its prompts have."""

import copy
import dataclasses
import datetime
import io
import json

import pytest

from adakd_jax.config import FileSource
from adakd_jax.config.provenance import OtherRunError, check_same_run, write_provenance
from adakd_jax.console import Console
from adakd_jax.data import chat_render
from adakd_jax.data.sources import MalformedRowsError
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.training.chat import asking_alike, with_chat_template, with_date, with_earlier_date
from adakd_jax.training.prepare import prepare
from adakd_jax.training.run import run_job
from tests.hf.tiny import CHAT_TEMPLATE, SPECIAL, tiny_teacher

DATED = "{{ strftime_now('%d %b %Y') }}" + CHAT_TEMPLATE


def told(settings):
    console = Console(file=io.StringIO(), width=200)
    ready = prepare(settings, console)
    return ready, console.file.getvalue()


def model(path, **changes):
    made = tiny_teacher()
    tokenizer = copy.deepcopy(made.tokenizer)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return save_pretrained(dataclasses.replace(made, tokenizer=tokenizer), path)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base model: ChatML, but its EOS ends documents."""
    return model(
        tmp_path_factory.mktemp("base") / "model", eos_token=SPECIAL[0], pad_token=SPECIAL[0]
    )


def checkpoint(make_settings, run_dir, student, **chat):
    settings = make_settings(run_dir, student={"kind": "checkpoint", "path": str(student)})
    data = settings.data.model_copy(
        update={"chat": settings.data.chat.model_copy(update=chat), "on_error": "fail"}
    )
    return settings.model_copy(update={"data": data})


def test_answers_of_a_base_model_end_with_the_turn(make_settings, base, tmp_path):
    ready, _ = told(checkpoint(make_settings, tmp_path, base))
    turn = ready.student.tokenizer.convert_tokens_to_ids(SPECIAL[2])
    last = [ready.batches.examples[n].tokens[-1] for n in range(4)]
    assert set(last) == {turn} and ready.student.tokenizer.eos_token_id == turn


def test_a_finished_run_of_a_base_model_stops_where_turns_end(make_settings, base, tmp_path):
    settings = checkpoint(make_settings, tmp_path / "run", base)
    settings = settings.model_copy(
        update={"training": settings.training.model_copy(update={"steps": 2})}
    )
    run_job(settings, ["test"], Console(quiet=True))
    exported = load_pretrained(tmp_path / "run" / "export")
    names = exported.tokenizer.convert_ids_to_tokens(
        exported.source.generation_config["eos_token_id"]
    )
    assert names == [SPECIAL[2], SPECIAL[0]] and exported.tokenizer.eos_token == SPECIAL[2]


def test_a_student_without_a_template_takes_the_teachers(make_settings, tmp_path):
    student = model(tmp_path / "student", chat_template=None)
    ready, said = told(checkpoint(make_settings, tmp_path / "run", student))
    assert ready.student.tokenizer.chat_template == CHAT_TEMPLATE
    assert "template the teacher's, as the student has none" in said


def test_another_template_of_the_teacher_is_said(make_settings, tmp_path):
    other = CHAT_TEMPLATE.replace("<|im_start|>", "<|im_start|>role=")
    student = model(tmp_path / "student", chat_template=other)
    ready, said = told(checkpoint(make_settings, tmp_path / "run", student))
    assert ready.student.tokenizer.chat_template == other
    assert "template the student's; the teacher's is another" in said
    ready, said = told(checkpoint(make_settings, tmp_path / "run", student, template="teacher"))
    assert ready.student.tokenizer.chat_template == CHAT_TEMPLATE


def test_an_instruct_teacher_under_another_format_is_warned_about(make_settings, tmp_path):
    student = load_pretrained(model(tmp_path / "student", chat_template=None))
    settings = make_settings(tmp_path / "run").data.model_copy(update={"template": "alpaca"})
    console = Console(file=io.StringIO(), width=200)
    with_chat_template(settings, student, tiny_teacher().tokenizer, console)
    assert "warning: the teacher's tokenizer has a chat template" in console.file.getvalue()


def test_who_writes_answers_is_asked_in_a_template_it_knows(make_settings, tmp_path):
    data = make_settings(tmp_path).data
    student, teacher = tiny_teacher(), tiny_teacher()
    bare = copy.deepcopy(teacher.tokenizer)
    bare.chat_template = None
    asked = asking_alike(dataclasses.replace(teacher, tokenizer=bare), student, data)
    assert asked.tokenizer.chat_template == CHAT_TEMPLATE and bare.chat_template is None
    assert asking_alike(teacher, student, data) is teacher


def test_a_row_that_the_template_cannot_write_obeys_on_error(make_settings, tmp_path):
    rows = tmp_path / "rows.jsonl"
    good = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    thought = [good[0], {**good[1], "reasoning_content": "hm"}]
    lines = [{"messages": good}, {"messages": thought}, {"messages": good}]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = make_settings(tmp_path / "run")
    data = {"train": FileSource(path=str(rows)), "validation_fraction": 0.0}
    failing = settings.model_copy(update={"data": settings.data.model_copy(update=data)})
    with pytest.raises(MalformedRowsError, match=r"1 of 3 rows.*\n  rows.jsonl:2: .*leaves out"):
        prepare(failing, Console(quiet=True))
    skipping = failing.model_copy(
        update={"data": failing.data.model_copy(update={"on_error": "skip"})}
    )
    ready, said = told(skipping)
    assert len(ready.batches.examples) == 2
    assert "dropped: 1 rows, first rows.jsonl:2: the chat template leaves out" in said


class Tomorrow(datetime.date):
    @classmethod
    def today(cls):
        return cls(2031, 5, 17)


def test_the_date_in_prompts_is_that_of_the_first_start(make_settings, tmp_path, monkeypatch):
    student = model(tmp_path / "student", chat_template=DATED)
    settings = checkpoint(make_settings, tmp_path / "run", student)
    first, _ = told(settings)
    date = datetime.date.fromisoformat(first.config.data.chat.date)
    begins = first.student.tokenizer.decode(first.batches.examples[0].tokens)
    assert begins.startswith(f"{date:%d %b %Y}")
    write_provenance(settings.run_dir, first.config, ["test"], ["cpu"])
    monkeypatch.setattr(datetime, "date", Tomorrow)
    monkeypatch.setattr(chat_render.datetime, "date", Tomorrow)
    again, _ = told(with_earlier_date(settings))
    assert again.config == first.config
    assert len(again.batches.examples) == len(first.batches.examples)
    other = settings.model_copy(update={"run_dir": str(tmp_path / "other")})
    assert with_date(with_earlier_date(other), first.student).data.chat.date == "2031-05-17"
    assert with_date(other, first.student, "2030-01-01").data.chat.date == "2030-01-01"


def test_settings_of_another_version_are_told_by_who_compares_them(make_settings, tmp_path):
    settings = make_settings(tmp_path)
    (tmp_path / "config.yaml").write_text("no_such_key: 1\n")
    assert with_earlier_date(settings) is settings
    with pytest.raises(OtherRunError, match="no_such_key: 1 -> absent"):
        check_same_run(settings.run_dir, settings)


def test_a_template_without_a_date_pins_none(make_settings, base, tmp_path):
    ready, _ = told(checkpoint(make_settings, tmp_path / "run", base))
    assert ready.config.data.chat.date is None
