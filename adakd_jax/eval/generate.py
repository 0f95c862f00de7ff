"""Batched generation with a key-value cache: greedy, or sampled with one seed per prompt."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Int, Key

from adakd_jax.axes import size_along
from adakd_jax.config import GenerationConfig
from adakd_jax.eval.decode import Batch, How, decode
from adakd_jax.eval.decoding_weights import weights_for
from adakd_jax.eval.prompts import check_prompts


class GenerationProgress(NamedTuple):
    """What `generate` has done so far: prompts answered, of how many, with how many new tokens."""

    answered: int
    total: int
    tokens: int


def generate(
    graphdef: nnx.GraphDef,
    params: Any,
    prompts: Sequence[Sequence[int]],
    settings: GenerationConfig,
    *,
    eos_ids: Sequence[int],
    pad_id: int,
    seed: int = 0,
    sample_ids: Sequence[int] | None = None,
    vocabulary: int | None = None,
    progress: Callable[[GenerationProgress], object] | None = None,
) -> list[list[int]]:
    """Continues every prompt until an end token or `settings.max_new_tokens`.

    Prompts of similar length are decoded together; a rounded length compiles once. An answer
    depends on its prompt, `seed` and its sample id; the prompts it is batched with change nothing
    but the rounding of its logits. The devices of the context's mesh share the prompts, see
    `weights_for`; a batch is then as many as they divide, at least `settings.batch_size`.

    Args:
      graphdef: structure of a `Decoder`.
      params: its parameters; new values do not recompile.
      prompts: token ids, each at least one.
      settings: sampling and batch size.
      eos_ids: tokens that end an answer; may be empty.
      pad_id: a token of the model to fill rows with; it is masked.
      seed: of sampling.
      sample_ids: what makes the samples of a seed differ; by default the index of the prompt.
      vocabulary: how many tokens, the first ones, may be written; None: all.
      progress: called every few tokens.

    Returns:
      The new tokens of each prompt in input order, the end token included.

    Raises:
      TooLongError: a prompt with its answer is longer than there are learned positions.
      UnknownTokensError: a prompt holds tokens that the model has not.
      ValueError: an empty prompt.
    """
    config = nnx.merge(graphdef, params).config
    check_prompts(config, prompts, settings.max_new_tokens)
    size = min(config.vocab_size, vocabulary or config.vocab_size)
    ids = range(len(prompts)) if sample_ids is None else sample_ids
    ends = np.asarray(eos_ids, np.int32).reshape(-1)
    longest = _rounded(max(map(len, prompts), default=1)) + settings.max_new_tokens
    weights = weights_for(config, params, rows=settings.batch_size, length=longest)
    how = How(graphdef, settings, size, weights.axes)
    at_once = -(-settings.batch_size // size_along(weights.axes)) * size_along(weights.axes)
    answers: list[list[int]] = [[] for _ in prompts]
    report = GenerationProgress(0, len(prompts), 0)
    for rows in _by_length(prompts, at_once):
        padded = _pad_left([prompts[row] for row in rows], at_once, pad_id)
        keys = _sample_keys(seed, [ids[row] for row in rows], at_once)
        done, tokens = report.answered, report.tokens
        for told in decode(how, weights, Batch(*padded, keys, ends)):
            lengths, ended = told.lengths[: len(rows)], told.ended[: len(rows)]
            report = GenerationProgress(
                done + int(ended.sum()), len(prompts), tokens + int(lengths.sum())
            )
            if progress is not None:
                progress(report)
        for row, answer, length in zip(rows, told.answers, lengths, strict=False):
            answers[row] = answer[:length].tolist()
    return answers


def _by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Row numbers of each batch, longest prompts first: the first batch shows whether all fit."""
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _pad_left(
    prompts: Sequence[Sequence[int]], rows: int, pad_id: int
) -> tuple[Int[np.ndarray, "B T"], Int[np.ndarray, " B"]]:
    width = _rounded(max(len(prompt) for prompt in prompts))
    tokens = np.full((rows, width), pad_id, np.int32)
    lengths = np.zeros(rows, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = prompt
        lengths[row] = len(prompt)
    return tokens, lengths


def _rounded(length: int) -> int:
    """The next power of two from 16 to 64, then the next multiple of 64: few shapes to compile."""
    return max(16, 1 << (length - 1).bit_length()) if length <= 64 else -(-length // 64) * 64


def _sample_keys(seed: int, ids: Sequence[int], rows: int) -> Key[Array, " B"]:
    numbers = np.zeros(rows, np.uint32)
    numbers[: len(ids)] = ids
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)
