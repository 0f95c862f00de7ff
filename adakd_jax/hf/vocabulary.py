"""Tokens that a tokenizer knows and a model has no embedding for."""

from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from adakd_jax.hf.pretrained import Pretrained

_SHOWN = 5


class UnknownTokensError(ValueError):
    """Texts hold tokens that a model has not; the message names them and the ways out."""


class Embedding(NamedTuple):
    """A model as far as tokens go: what messages call it, and how many embeddings it has."""

    name: str
    size: int


def embedding_of(model: Pretrained, who: str = "") -> Embedding:
    """The embedding of a model; `who` is put before its name, as in "the teacher"."""
    return Embedding(f"{who} {model.source.name}".strip(), model.config.vocab_size)


def tokenizer_size(tokenizer: PreTrainedTokenizerFast) -> int:
    """One more than the largest id: how many embeddings a tokenizer's tokens need."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def usable_vocabulary(*models: Pretrained) -> int:
    """The first ids that all models have an embedding and their tokenizers a token for."""
    sizes = [model.config.vocab_size for model in models]
    tokenizers = [model.tokenizer for model in models if model.tokenizer is not None]
    return min([*sizes, *map(tokenizer_size, tokenizers)])


def check_tokenizer_fits(model: Pretrained, who: str) -> None:
    """Refuse a model whose tokenizer has tokens without an embedding.

    Raises:
        UnknownTokensError: names some of them.
    """
    if model.tokenizer is None:
        return
    size = model.config.vocab_size
    beyond = {number for number in model.tokenizer.get_vocab().values() if number >= size}
    if beyond:
        raise _unknown("the tokenizer has", beyond, embedding_of(model, who), model.tokenizer)


def check_known(
    what: str,
    found: Set[int],
    embeddings: Sequence[Embedding],
    tokenizer: PreTrainedTokenizerFast | None,
) -> None:
    """Refuse texts with tokens that a model has no embedding for.

    Args:
        what: the texts, with their verb, such as "the training rows hold".
        found: the ids they hold, at least those of the smallest embedding's size or above.
        embeddings: of the models that are to read them.
        tokenizer: says what the ids stand for.

    Raises:
        UnknownTokensError: names the model, the tokens and what would be valid.
    """
    for embedding in embeddings:
        beyond = {number for number in found if number >= embedding.size}
        if beyond:
            raise _unknown(what, beyond, embedding, tokenizer)


def ids_from(texts: Iterable[Sequence[int] | np.ndarray], size: int) -> set[int]:
    """The ids that are `size` or above."""
    arrays = (np.asarray(tokens, np.int64) for tokens in texts)
    return {number for each in arrays for number in np.unique(each[each >= size]).tolist()}


def _unknown(
    what: str,
    beyond: Set[int],
    embedding: Embedding,
    tokenizer: PreTrainedTokenizerFast | None,
) -> UnknownTokensError:
    numbers = sorted(beyond)
    names = [None] * len(numbers)
    if tokenizer is not None:
        names = tokenizer.convert_ids_to_tokens(numbers)
    shown = [
        f"{number}" if name is None else f"{name!r} ({number})"
        for number, name in list(zip(numbers, names, strict=True))[:_SHOWN]
    ]
    more = f" and {len(numbers) - _SHOWN:,} more" if len(numbers) > _SHOWN else ""
    return UnknownTokensError(
        f"{what} tokens that {embedding.name} has no embedding for: {', '.join(shown)}{more}; it "
        f"has {embedding.size:,} embeddings. Valid: a model with at least {numbers[-1] + 1:,} "
        "(resize_token_embeddings of transformers, then saved again), or rows and a tokenizer "
        "without these tokens"
    )
