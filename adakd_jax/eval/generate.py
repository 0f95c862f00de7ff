"""Batched generation with a key-value cache: greedy, or sampled with one seed per prompt."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Int, Key

from adakd_jax.axes import replicated
from adakd_jax.config import GenerationConfig
from adakd_jax.eval.prompts import check_prompts
from adakd_jax.eval.sampling import next_tokens, penalised
from adakd_jax.models.cache import KVCache, cut_into_layers, init_cache
from adakd_jax.models.decoder import Decoder, logits
from adakd_jax.models.layer_views import layer_views

_SEGMENT = 16  # tokens decoded between two reports of progress


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
    but the rounding of its logits.

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
    weights = _Weights(params, layer_views(params["layers"]))
    answers: list[list[int]] = [[] for _ in prompts]
    report = GenerationProgress(0, len(prompts), 0)
    for rows in _by_length(prompts, settings.batch_size):
        padded = _pad_left([prompts[row] for row in rows], settings.batch_size, pad_id)
        keys = _sample_keys(seed, [ids[row] for row in rows], settings.batch_size)
        done, tokens = report.answered, report.tokens
        batch = _Batch(*padded, keys, ends)
        for state in _decode_batch(graphdef, weights, batch, settings, size):
            lengths, ended = jax.device_get((state.answer_lengths, state.ended))
            lengths, ended = lengths[: len(rows)], ended[: len(rows)]
            report = GenerationProgress(
                done + int(ended.sum()), len(prompts), tokens + int(lengths.sum())
            )
            if progress is not None:
                progress(report)
        for row, answer, length in zip(rows, np.asarray(state.answers), lengths, strict=False):
            answers[row] = answer[:length].tolist()
    return answers


class _Batch(NamedTuple):
    """Prompts padded on the left, and what picks and ends their answers.

    A length of 0 marks a row that only fills the batch.
    """

    tokens: Int[np.ndarray, "B T"]
    lengths: Int[np.ndarray, " B"]
    keys: Key[Array, " B"]
    eos_ids: Int[np.ndarray, " E"]


class _Weights(NamedTuple):
    """A model's parameters, and those of its layers one by one where that costs no memory."""

    params: Any
    views: tuple[Any, ...] | None


class _State(NamedTuple):
    """Where decoding stands; row b's answer is `answers[b, :answer_lengths[b]]`."""

    cache: KVCache
    answers: Int[Array, "B max_new_tokens"]
    answer_lengths: Int[Array, " B"]
    ended: Bool[Array, " B"]
    step: Int[Array, ""]  # columns of `answers` written
    held: Bool[Array, "B V"] | None = None  # tokens that prompt or answer hold, if that matters


def _decode_batch(
    graphdef: nnx.GraphDef,
    weights: _Weights,
    batch: _Batch,
    settings: GenerationConfig,
    size: int,
) -> Iterator[_State]:
    """Yields the state every few tokens; each is valid until the next is asked for."""
    state = _prefill(graphdef, settings, size, weights.params, batch)
    if weights.views is not None:
        state = state._replace(cache=cut_into_layers(state.cache))
    until = 1
    while True:
        finished = until >= settings.max_new_tokens or bool(state.ended.all())
        if finished:
            state = state._replace(ended=jnp.ones_like(state.ended))
        yield state
        if finished:
            return
        until = min(until + _SEGMENT, settings.max_new_tokens)
        state = _continue(graphdef, settings, size, weights, batch, state, np.int32(until))


@functools.partial(jax.jit, static_argnames=("graphdef", "settings", "size"))
def _prefill(
    graphdef: nnx.GraphDef, settings: GenerationConfig, size: int, params: Any, batch: _Batch
) -> _State:
    """Reads the prompts and picks the first token of every answer."""
    model = nnx.merge(graphdef, params)
    rows, width = batch.tokens.shape
    length = width + settings.max_new_tokens
    cache = init_cache(model.config, rows, length, model.config.compute_dtype)
    # A filling row sees one token, so that its softmax is over something.
    padding = width - jnp.maximum(batch.lengths, 1)
    positions = jnp.arange(width, dtype=jnp.int32)[None, :] - padding[:, None]
    hidden, cache = model.decode(batch.tokens, jnp.maximum(positions, 0), positions >= 0, cache)
    state = _State(
        cache=cache,
        answers=jnp.zeros((rows, settings.max_new_tokens), jnp.int32),
        answer_lengths=jnp.zeros(rows, jnp.int32),
        ended=batch.lengths == 0,
        step=jnp.zeros((), jnp.int32),
        held=None if settings.repetition_penalty == 1.0 else _held(size, batch, positions >= 0),
    )
    return _append(model, settings, size, batch, state, hidden[:, -1])


def _held(size: int, batch: _Batch, valid: Array) -> Bool[Array, "B V"]:
    rows = jnp.arange(valid.shape[0])[:, None]
    none = jnp.zeros((valid.shape[0], size), bool)
    return none.at[rows, batch.tokens].max(valid, mode="drop")


@functools.partial(
    jax.jit, static_argnames=("graphdef", "settings", "size"), donate_argnames=("state",)
)
def _continue(
    graphdef: nnx.GraphDef,
    settings: GenerationConfig,
    size: int,
    weights: _Weights,
    batch: _Batch,
    state: _State,
    until: Int[np.ndarray | Array, ""],
) -> _State:
    """Decodes token by token until `until` columns are written or every row has ended."""
    model = nnx.merge(graphdef, weights.params)

    def body(state: _State) -> _State:
        tokens = jax.lax.dynamic_slice_in_dim(state.answers, state.step - 1, 1, axis=1)
        positions = (batch.lengths + state.step - 1)[:, None]
        hidden, cache = model.decode(
            tokens, positions, ~state.ended[:, None], state.cache, weights.views
        )
        state = state._replace(cache=cache)
        return _append(model, settings, size, batch, state, hidden[:, -1])

    def unfinished(state: _State) -> Bool[Array, ""]:
        return (state.step < until) & ~jnp.all(state.ended)

    return jax.lax.while_loop(unfinished, body, state)


def _append(
    model: Decoder,
    settings: GenerationConfig,
    size: int,
    batch: _Batch,
    state: _State,
    hidden: Array,
) -> _State:
    """Picks each row's next token from its last hidden state."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(batch.keys, state.step)
    scores, held = logits(hidden, model.head()._replace(size=size)), state.held
    if held is not None:
        scores = penalised(scores, held, settings.repetition_penalty)
    tokens = next_tokens(
        scores,
        keys,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
    )
    is_end = jnp.any(tokens[:, None] == jnp.asarray(batch.eos_ids)[None, :], axis=1)
    answers = jax.lax.dynamic_update_slice(state.answers, tokens[:, None], (0, state.step))
    return state._replace(
        answers=replicated(answers),
        answer_lengths=replicated(state.answer_lengths + ~state.ended),
        ended=replicated(state.ended | is_end),
        step=state.step + 1,
        held=None if held is None else held.at[jnp.arange(len(tokens)), tokens].set(True),
    )


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
