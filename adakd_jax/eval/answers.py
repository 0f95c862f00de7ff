"""From prompts to answers in words: generation with a model's own tokenizer and end tokens."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from adakd_jax.config import GenerationConfig
from adakd_jax.data.chat_ends import turn_ends
from adakd_jax.data.chat_render import ChatRenderer
from adakd_jax.eval.generate import GenerationProgress, generate
from adakd_jax.eval.prompts import check_prompts
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.hf.vocabulary import check_known, embedding_of


class Answer(NamedTuple):
    """A generated text without special tokens, its length in tokens, and what ended it."""

    text: str
    tokens: int
    finish: Literal["eos", "length"]


def answer_prompts(
    model: Pretrained,
    prompts: Sequence[Sequence[int]],
    settings: GenerationConfig,
    *,
    params: Any = None,
    seed: int = 0,
    sample_ids: Sequence[int] | None = None,
    progress: Callable[[GenerationProgress], object] | None = None,
) -> list[Answer]:
    """Answers prompts with a model.

    Args:
      model: the model; it needs a tokenizer.
      prompts: token ids of each prompt.
      settings: how to sample.
      params: parameters to use in place of the model's own, e.g. those being trained.
      seed: of sampling.
      sample_ids: see `generate`.
      progress: see `generate`.

    Returns:
      One answer per prompt, in order.

    Raises:
      ValueError: see `check_answerable`.
    """
    check_answerable(model, prompts, settings)
    tokenizer = model.tokenizer
    assert tokenizer is not None  # it has just been refused
    ends = end_tokens(model)
    pad = tokenizer.pad_token_id
    generated = generate(
        model.graphdef,
        model.params if params is None else params,
        prompts,
        settings,
        eos_ids=ends,
        pad_id=pad if isinstance(pad, int) else 0,
        seed=seed,
        sample_ids=sample_ids,
        progress=progress,
    )
    texts = tokenizer.batch_decode(
        generated, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return [
        Answer(text, len(tokens), "eos" if tokens[-1] in ends else "length")
        for text, tokens in zip(texts, generated, strict=True)
    ]


def check_answerable(
    model: Pretrained, prompts: Sequence[Sequence[int] | np.ndarray], settings: GenerationConfig
) -> None:
    """Refuse, before any answer, all prompts together that a model cannot answer in words.

    Raises:
      ValueError: it has no tokenizer, or an embedding for none of its end tokens; or see
        `check_prompts`.
    """
    name = model.source.name
    if model.tokenizer is None:
        raise ValueError(f"{name} has no tokenizer, which answers in words need")
    ends = end_tokens(model)
    if ends and min(ends) >= model.config.vocab_size:
        check_known("its answers end with", set(ends), [embedding_of(model)], model.tokenizer)
    check_prompts(
        model.config, prompts, settings.max_new_tokens, name=name, tokenizer=model.tokenizer
    )


def end_tokens(model: Pretrained) -> tuple[int, ...]:
    """The tokens that end an answer: the tokenizer's EOS, those of the generation config, and those
    that end an assistant's turn in the chat template.
    """
    configured = model.source.generation_config.get("eos_token_id")
    ids = list(configured) if isinstance(configured, list | tuple) else [configured]
    if model.tokenizer is not None:
        ids += [model.tokenizer.eos_token_id, *_turn_ends(model.tokenizer)]
    return tuple(sorted({token for token in ids if isinstance(token, int)}))


def _turn_ends(tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    if not tokenizer.chat_template:
        return ()
    try:
        return turn_ends(ChatRenderer(tokenizer)).tokens
    except ValueError:  # a template that cannot be used ends nothing
        return ()
