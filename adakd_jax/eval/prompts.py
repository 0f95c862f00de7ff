"""Which prompts a model can answer."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from adakd_jax.hf.vocabulary import Embedding, check_known, ids_from
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.positions import Reads, check_positions


def check_prompts(
    config: DecoderConfig,
    prompts: Sequence[Sequence[int] | np.ndarray],
    new_tokens: int,
    *,
    name: str = "the model",
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> None:
    """Refuse, before any answer, all prompts together that a model cannot answer.

    Args:
        config: of the model.
        prompts: token ids of each.
        new_tokens: of an answer, at most.
        name: what messages call the model.
        tokenizer: says there what ids stand for.

    Raises:
        TooLongError: a prompt with its answer is longer than there are learned positions.
        UnknownTokensError: a prompt holds tokens that the model has not.
        ValueError: a prompt is empty.
    """
    lengths = [len(prompt) for prompt in prompts]
    if 0 in lengths:
        raise ValueError(f"prompt {lengths.index(0)} is empty; a prompt needs at least one token")
    longest = max(lengths, default=0)
    if longest:
        told = f"prompt {lengths.index(longest)} of {longest} tokens + max_new_tokens {new_tokens}"
        check_positions(config, [Reads(told, longest + new_tokens)], name)
    found = ids_from(prompts, config.vocab_size)
    check_known("the prompts hold", found, [Embedding(name, config.vocab_size)], tokenizer)
