"""What a model cannot read or answer is refused before training, and before it compiles."""

import io
import json

import pytest
from transformers import PreTrainedTokenizerFast

from adakd_jax.config.teacher_cache import CacheCommand
from adakd_jax.console import Console
from adakd_jax.evaluate import main as evaluate
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.vocabulary import UnknownTokensError
from adakd_jax.models import decoder_config
from adakd_jax.models.positions import TooLongError
from adakd_jax.teacher_cache.command import cache_teacher
from adakd_jax.training.dry_run import dry_run
from adakd_jax.training.measure import held_out_of
from adakd_jax.training.positions import check_lengths
from adakd_jax.training.prepare import prepare
from tests.hf.tiny import CHAT_TEMPLATE, SPECIAL, TINY_LLAMA, make_pretrained, make_tokenizer
from tests.training.tiny_run import run

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": 320}
ADDED = ("<tool>", "</tool>")
NO_ANSWERS = {"generate_examples": 0, "token_snapshots": 0}


def quiet():
    return Console(record=True, width=200, file=io.StringIO())


def tokenizer(*added):
    """That of the tiny teacher, with tokens more."""
    found = PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(),
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[2],
        chat_template=CHAT_TEMPLATE,
    )
    found.add_special_tokens({"additional_special_tokens": list(added)})
    return found


@pytest.fixture(scope="module")
def learned_positions(tmp_path_factory):
    """A GPT-2 that can read 64 tokens; its weights, which nothing here gets to, are not there."""
    folder = tmp_path_factory.mktemp("gpt2") / "model"
    save_pretrained(make_pretrained(GPT2 | {"n_positions": 64}, tokenizer()), folder)
    (folder / "model.safetensors").unlink()
    return {"path": str(folder)}


def data_of(config, **changes):
    return config.data.model_dump() | changes


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"max_length": 96}}, r"the teacher has .* 64 tokens, but data\.max_length is 96"),
        (
            {"evaluation": {"before": False, "generation": {"max_new_tokens": 40}}},
            r"the student .*data\.max_prompt_length \+ evaluation\.generation\.\w+ is 88; valid",
        ),
        (
            {"evaluation": {"generation": {"max_new_tokens": 40}}},
            r"the teacher .* \+ evaluation\.generation\.max_new_tokens is 88",
        ),
        (
            {"policy": {"kind": "gkd", "generation": {"max_new_tokens": 17}}},
            r"the student .* \+ policy\.generation\.max_new_tokens is 65",
        ),
        (
            {"policy": {"kind": "seqkd", "generation": {"max_new_tokens": 17}}},
            r"the teacher .* \+ policy\.generation\.max_new_tokens is 65",
        ),
    ],
)
def test_lengths_beyond_learned_positions(settings, learned_positions, changes, told):
    config = settings(teacher=learned_positions)
    merged = {
        key: config.model_dump()[key] | value if key != "policy" else value
        for key, value in changes.items()
    }
    config = settings(teacher=learned_positions, **merged)
    for start in (run, dry_run):
        with pytest.raises(TooLongError, match=told):
            start(config)
    with pytest.raises(TooLongError, match=r"the (teacher|student) has learned positions"):
        cache = {"cache": "unused"} | learned_positions
        values = config.model_dump() | {"teacher": cache, "policy": {"kind": "offline"}}
        values["data"] |= {"max_length": 96}
        cache_teacher(CacheCommand.model_validate(values), quiet())


def test_a_teacher_that_is_loaded_to_be_cached_alone(settings, teacher, tmp_path):
    path = save_pretrained(make_pretrained(GPT2 | {"n_positions": 60}, tokenizer()), tmp_path / "t")
    values = settings().model_dump() | {"student": {"kind": "checkpoint", "path": str(teacher)}}
    values["teacher"] = {"path": str(path), "cache": str(tmp_path / "cache")}
    with pytest.raises(TooLongError, match=r"the teacher .* 60 tokens, but data\.max_length is 64"):
        cache_teacher(CacheCommand.model_validate(values), quiet())


def test_lengths_that_fit_are_not_refused(settings, learned_positions):
    config = settings(teacher=learned_positions)
    whole = decoder_config(GPT2 | {"n_positions": 64})
    assert check_lengths(config, whole, whole) == []


def test_a_model_of_rotary_positions_gets_a_remark(settings):
    config = settings()
    shorter = decoder_config(TINY_LLAMA | {"max_position_embeddings": 50})
    remarks = check_lengths(config, shorter, decoder_config(TINY_LLAMA))
    assert len(remarks) == 1
    assert remarks[0].startswith("data.max_length is 64; data.max_prompt_length + evaluation")
    assert "the teacher was made for 50 tokens (max_position_embeddings)" in remarks[0]


def test_an_earlier_turn_counts_as_prompt_of_what_the_student_answers(settings, tmp_path):
    turns = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "It. " * 6}]
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f"{json.dumps({'messages': turns + turns})}\n" * 4)
    model = make_pretrained(GPT2 | {"n_positions": 128}, tokenizer())
    path = str(save_pretrained(model, tmp_path / "model"))
    base = settings(teacher={"path": path})
    train = {"kind": "file", "path": str(rows)}
    policy = {"kind": "gkd", "generation": {"max_new_tokens": 80}}
    data = data_of(base, train=train, max_length=128)
    config = settings(teacher={"path": path}, data=data, policy=policy)
    with pytest.raises(TooLongError, match=r"the longest prompt of a row .* is 1\d\d; valid"):
        prepare(config, quiet())


@pytest.fixture(scope="module")
def tool_rows(tmp_path_factory):
    """Rows whose answers hold the added tokens."""
    file = tmp_path_factory.mktemp("tools") / "rows.jsonl"
    rows = [{"instruction": f"Look {n}.", "output": "<tool>a pear</tool>"} for n in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"kind": "file", "path": str(file)}


@pytest.fixture(scope="module")
def resized(tmp_path_factory):
    """A student whose tokenizer and embedding have two tokens that the teacher has not."""
    config = TINY_LLAMA | {"vocab_size": 322, "num_hidden_layers": 1}
    path = tmp_path_factory.mktemp("resized") / "model"
    return str(save_pretrained(make_pretrained(config, tokenizer(*ADDED)), path))


@pytest.fixture(scope="module")
def unresized(tmp_path_factory):
    """A model whose tokenizer has two tokens more than its embedding, as nobody should save it."""
    path = tmp_path_factory.mktemp("unresized") / "model"
    model = make_pretrained(TINY_LLAMA | {"max_position_embeddings": 1024}, tokenizer())
    save_pretrained(model, path)
    tokenizer(*ADDED).save_pretrained(path)
    return str(path)


THESE = r"'<tool>' \(320\), '</tool>' \(321\); it has 320 embeddings\. Valid: .* at least 322 "


@pytest.mark.parametrize("distill", [{"kd_weight": 1}, {"kd_weight": 0, "ce_weight": 1}])
def test_tokens_that_the_teacher_has_not(settings, resized, tool_rows, distill):
    student = {"kind": "checkpoint", "path": resized}
    base = settings()
    fields = {"student": student, "evaluation": NO_ANSWERS, "distill": distill}
    if not distill["kd_weight"]:
        fields["distill"] = distill | {"focus": {"kind": "all"}, "score": {"kind": "uniform"}}
    config = settings(data=data_of(base, train=tool_rows), **fields)
    with pytest.raises(UnknownTokensError, match=rf"training rows .* the teacher .*: {THESE}"):
        run(config)


def test_tokens_that_held_out_rows_alone_hold(settings, resized, tool_rows):
    data = data_of(settings(), validation=tool_rows, validation_fraction=0.0)
    student = {"kind": "checkpoint", "path": resized}
    console = quiet()
    prepared = prepare(settings(data=data, student=student, evaluation=NO_ANSWERS), console)
    assert "over the first 320, 2 tokens that one adds are left out" in console.export_text()
    with pytest.raises(UnknownTokensError, match=rf"held-out rows hold .* the teacher .*: {THESE}"):
        held_out_of(prepared)


def test_tokens_that_a_cached_teacher_has_not(settings, resized, tool_rows, tmp_path):
    base = settings()
    data = data_of(base, train=tool_rows, validation_fraction=0.0)
    values = base.model_dump() | {
        "data": data,
        "student": {"kind": "checkpoint", "path": resized},
        "teacher": base.teacher.model_dump() | {"cache": str(tmp_path / "cache")},
    }
    values["evaluation"] |= {"every_steps": None}
    with pytest.raises(UnknownTokensError, match=rf"the teacher .*: {THESE}"):
        cache_teacher(CacheCommand.model_validate(values), quiet())


def test_a_student_that_its_tokenizer_has_outgrown(settings, unresized):
    student = {"kind": "checkpoint", "path": unresized}
    with pytest.raises(UnknownTokensError, match=rf"the tokenizer has .* the student .*: {THESE}"):
        run(settings(student=student))


def test_evaluate_refuses_rows_and_lengths_that_a_model_cannot_read(
    unresized, tool_rows, rows, tmp_path, capsys
):
    flags = ["--template", "chat", "--cache_dir", str(tmp_path), "--generate_examples", "0"]
    with pytest.raises(SystemExit) as stopped:
        evaluate(["--model", unresized, "--data", tool_rows["path"], *flags])
    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "the held-out rows hold" in told and "'<tool>' (320)" in told
    path = tmp_path / "gpt2"
    model = make_pretrained(GPT2 | {"n_positions": 64}, tokenizer())
    save_pretrained(model, path)
    with pytest.raises(SystemExit) as stopped:
        evaluate(["--model", str(path), "--data", str(rows), *flags])
    assert stopped.value.code == 2
    assert "has learned positions for 64 tokens, but max_length is 512" in capsys.readouterr().err


def test_what_is_longer_than_it_needs_goes_on(settings, teacher, unresized):
    """Rows without the added tokens are taught by a teacher whose tokenizer alone has them."""
    student = {"kind": "checkpoint", "path": str(teacher)}
    prepared = prepare(settings(teacher={"path": unresized}, student=student), quiet())
    assert held_out_of(prepared) is not None
