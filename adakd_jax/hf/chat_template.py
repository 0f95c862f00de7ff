"""Whose chat template a model uses, and the end tokens that go with it."""

import copy
import dataclasses

from transformers import PreTrainedTokenizerFast

from adakd_jax.config.chat import ChatConfig
from adakd_jax.data.chat_ends import turn_ends
from adakd_jax.data.chat_render import ChatRenderer, TemplateRowError
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.user_path import user_path

_SUFFIX = ".jinja"


def with_template(
    model: Pretrained, chat: ChatConfig, teacher: PreTrainedTokenizerFast | None = None
) -> tuple[Pretrained, str | None]:
    """The model with the chat template that the settings choose.

    Args:
      model: with a tokenizer, which is copied.
      chat: the settings.
      teacher: the teacher's tokenizer, whose template a model without one takes.

    Returns:
      The model, and what is to be said of the choice, if anything.

    Raises:
      ValueError: there is no such template; says what would be valid.
    """
    assert model.tokenizer is not None
    template, note = _chosen(chat, model.tokenizer, teacher)
    if template == model.tokenizer.chat_template:
        return model, note
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = template
    default = template.get("default") if isinstance(template, dict) else template
    source = dataclasses.replace(model.source, chat_template=default)
    return dataclasses.replace(model, tokenizer=tokenizer, source=source), note


def ending_turns(model: Pretrained, chat: ChatConfig) -> Pretrained:
    """A model whose answers end as its chat template ends an assistant's turn.

    Where that is another token than its EOS (a base model with a ChatML template, whose EOS ends
    documents), the tokenizer's EOS becomes that token, unless the template would then write
    something else; the generation config names both.
    """
    assert model.tokenizer is not None
    ends = turn_ends(ChatRenderer(model.tokenizer, chat)).tokens
    if not ends:
        return model
    generation = dict(model.source.generation_config)
    named = generation.get("eos_token_id")
    before = named if isinstance(named, list | tuple) else [named, model.tokenizer.eos_token_id]
    ids = list(dict.fromkeys(end for end in (*ends, *before) if isinstance(end, int)))
    generation["eos_token_id"] = ids[0] if len(ids) == 1 else ids
    return dataclasses.replace(
        model,
        tokenizer=_with_eos(model.tokenizer, ends, chat),
        source=dataclasses.replace(model.source, generation_config=generation),
    )


def _with_eos(
    tokenizer: PreTrainedTokenizerFast, ends: tuple[int, ...], chat: ChatConfig
) -> PreTrainedTokenizerFast:
    if tokenizer.eos_token_id in ends:
        return tokenizer
    changed = copy.deepcopy(tokenizer)
    changed.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    try:
        same = ChatRenderer(changed, chat).sample == ChatRenderer(tokenizer, chat).sample
    except TemplateRowError:  # the template takes no conversation of several turns
        same = False
    return changed if same else tokenizer


def _chosen(
    chat: ChatConfig,
    student: PreTrainedTokenizerFast,
    teacher: PreTrainedTokenizerFast | None,
) -> tuple[str | dict[str, str], str | None]:
    """The template, and what is to be said of the choice."""
    own = student.chat_template
    others = None if teacher is None else teacher.chat_template
    name = chat.template
    if name is None and own:
        differs = others and others != own
        said = "the student's; the teacher's is another (data.chat.template teacher takes that)"
        return own, said if differs else None
    if name is None and others:
        return others, "the teacher's, as the student has none; it is exported with the student"
    if name is not None and name.endswith(_SUFFIX):
        return _read(name), name
    found = {"student": own, "teacher": others, **_named(others), **_named(own)}
    found = {key: value for key, value in found.items() if value}
    if name in found:
        return found[name], f"{name} (data.chat.template)"
    given = "there is no chat template" if name is None else f"there is no chat template {name!r}"
    raise ValueError(
        f"data.chat.template: {given}; valid: {', '.join([*found, 'a .jinja file'])}, "
        "or data.template alpaca or text"
    )


def _named(template: str | dict[str, str] | None) -> dict[str, str]:
    return template if isinstance(template, dict) else {}


def _read(name: str) -> str:
    path = user_path(name)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"data.chat.template: {path} cannot be read: {error}") from error
