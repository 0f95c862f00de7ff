"""Decoding a batch of prompts with a key-value cache, shared by the devices of a mesh.

Each device answers its own rows: no token needs another device, unless weights are split.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Int, Key

from adakd_jax.axes import each_with_its_rows, replicated
from adakd_jax.config import GenerationConfig
from adakd_jax.eval.decoding_weights import Weights, weights_are_split
from adakd_jax.eval.sampling import next_tokens, penalised
from adakd_jax.models.cache import KVCache, cut_into_layers, init_cache
from adakd_jax.models.decoder import Decoder
from adakd_jax.models.output import logits

_SEGMENT = 16  # tokens decoded between two reports of progress


class Batch(NamedTuple):
    """Prompts padded on the left, and what picks and ends their answers.

    A length of 0 marks a row that only fills the batch.
    """

    tokens: Int[np.ndarray, "B T"]
    lengths: Int[np.ndarray, " B"]
    keys: Key[Array, " B"]
    eos_ids: Int[np.ndarray, " E"]


class _State(NamedTuple):
    """Where decoding stands; row b's answer is `answers[b, :answer_lengths[b]]`."""

    cache: KVCache
    answers: Int[Array, "B max_new_tokens"]
    answer_lengths: Int[Array, " B"]
    ended: Bool[Array, " B"]
    step: Int[Array, ""]  # columns of `answers` written
    held: Bool[Array, "B V"] | None = None  # tokens that prompt or answer hold, if that matters


class Told(NamedTuple):
    """What the host is told of all rows; every process can read it."""

    answers: Int[Any, "B max_new_tokens"]
    lengths: Int[Any, " B"]
    ended: Bool[Any, " B"]


class How(NamedTuple):
    """The static half of decoding: model, settings, tokens that may be written, and the mesh axes
    that share the rows.
    """

    graphdef: nnx.GraphDef
    settings: GenerationConfig
    size: int
    axes: tuple[str, ...]

    def batch_specs(self) -> Batch:
        """How a batch is shared."""
        rows: Any = P(self.axes)
        whole: Any = P()
        return Batch(rows, rows, rows, whole)

    def state_specs(self) -> _State:
        """How a state is shared."""
        rows: Any = P(self.axes)
        stored: Any = P(None, self.axes)
        whole: Any = P()
        held = None if self.settings.repetition_penalty == 1.0 else rows
        return _State(KVCache(stored, rows, whole), rows, rows, rows, whole, held)

    def news_of(self, state: _State) -> Told:
        """What the host is told of a state."""
        return jax.tree.map(replicated, Told(state.answers, state.answer_lengths, state.ended))


def decode(how: How, weights: Weights, batch: Batch) -> Iterator[Told]:
    """Yields what is known of the answers every few tokens, in NumPy arrays, until all have ended.

    The rows of the batch are divided by the devices along `how.axes`.
    """
    settings = how.settings
    state, news = _prefill(how, weights.params, batch)
    if weights.views is not None:
        state = state._replace(cache=cut_into_layers(state.cache))
    until = 1
    while True:
        told = jax.device_get(news)
        finished = until >= settings.max_new_tokens or bool(told.ended.all())
        if finished:
            told = told._replace(ended=np.ones_like(told.ended))
        yield told
        if finished:
            return
        until = min(until + _SEGMENT, settings.max_new_tokens)
        state, news = _continue(how, (weights.params, weights.views), batch, state, np.int32(until))


@functools.partial(jax.jit, static_argnames="how")
def _prefill(how: How, params: Any, batch: Batch) -> tuple[_State, Told]:
    """Reads the prompts and picks the first token of every answer."""
    run = functools.partial(_read_prompts, how)
    specs = P(), how.batch_specs()
    state = each_with_its_rows(run, how.axes, specs, how.state_specs())(params, batch)
    return state, how.news_of(state)


def _read_prompts(how: How, params: Any, batch: Batch) -> _State:
    model, settings = nnx.merge(how.graphdef, params), how.settings
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
        held=None if settings.repetition_penalty == 1.0 else _held(how.size, batch, positions >= 0),
    )
    return _append(model, how, batch, state, hidden[:, -1])


def _held(size: int, batch: Batch, valid: Array) -> Bool[Array, "B V"]:
    rows = jnp.arange(valid.shape[0])[:, None]
    none = jnp.zeros((valid.shape[0], size), bool)
    return none.at[rows, batch.tokens].max(valid, mode="drop")


@functools.partial(jax.jit, static_argnames="how", donate_argnames="state")
def _continue(
    how: How,
    weights: tuple[Any, Any],
    batch: Batch,
    state: _State,
    until: Int[np.ndarray | Array, ""],
) -> tuple[_State, Told]:
    """Decodes token by token until `until` columns are written or every row has ended."""
    run = functools.partial(_decode_until, how)
    specs = P(), how.batch_specs(), how.state_specs(), P()
    decode = each_with_its_rows(run, how.axes, specs, how.state_specs())
    state = decode(weights, batch, state, until)
    return state, how.news_of(state)


def _decode_until(
    how: How, weights: tuple[Any, Any], batch: Batch, state: _State, until: Array
) -> _State:
    params, views = weights
    model = nnx.merge(how.graphdef, params)

    def body(state: _State) -> _State:
        tokens = jax.lax.dynamic_slice_in_dim(state.answers, state.step - 1, 1, axis=1)
        positions = (batch.lengths + state.step - 1)[:, None]
        hidden, cache = model.decode(tokens, positions, ~state.ended[:, None], state.cache, views)
        return _append(model, how, batch, state._replace(cache=cache), hidden[:, -1])

    # Weights that are split make a token a work of several devices, which then all go on until
    # the last row has ended, so that each collective finds its partners.
    together = how.axes if weights_are_split(how.axes) else ()

    def unfinished(state: _State) -> Bool[Array, ""]:
        ended = jnp.all(state.ended)
        if together:
            ended = jax.lax.pmin(ended.astype(jnp.int32), together) > 0
        return (state.step < until) & ~ended

    state = jax.lax.while_loop(unfinished, body, state)
    # Where all rows have ended nothing is written any more: each device counts on as the others do.
    index = state.cache.index + (until - state.step)
    return state._replace(step=until, cache=state.cache._replace(index=index))


def _append(model: Decoder, how: How, batch: Batch, state: _State, hidden: Array) -> _State:
    """Picks each row's next token from its last hidden state."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(batch.keys, state.step)
    scores, held = logits(hidden, model.head()._replace(size=how.size)), state.held
    if held is not None:
        scores = penalised(scores, held, how.settings.repetition_penalty)
    tokens = next_tokens(
        scores,
        keys,
        temperature=how.settings.temperature,
        top_k=how.settings.top_k,
        top_p=how.settings.top_p,
    )
    is_end = jnp.any(tokens[:, None] == jnp.asarray(batch.eos_ids)[None, :], axis=1)
    return state._replace(
        answers=jax.lax.dynamic_update_slice(state.answers, tokens[:, None], (0, state.step)),
        answer_lengths=state.answer_lengths + ~state.ended,
        ended=state.ended | is_end,
        step=state.step + 1,
        held=None if held is None else held.at[jnp.arange(len(tokens)), tokens].set(True),
    )
