"""The program that decodes answers, compiled for an absent TPU: what a token moves."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from adakd_jax.config import GenerationConfig
from adakd_jax.eval import decode, generate
from adakd_jax.models.cache import init_cache
from adakd_jax.models.decoder import abstract_decoder
from adakd_jax.models.families import decoder_config
from adakd_jax.planning.hardware import read_topology
from adakd_jax.planning.hlo import read_program
from adakd_jax.planning.inputs import devices_of
from adakd_jax.planning.traffic import bytes_moved

HF = {
    "model_type": "llama",
    "vocab_size": 32_000,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
ROWS, PROMPT, ANSWER = 8, 256, 256


def decoding(device):
    """The program, and the bytes of weights and cache."""
    config = dataclasses.replace(
        decoder_config(HF), compute_dtype="bfloat16", attention_implementation="xla"
    )
    graphdef, params = abstract_decoder(config, jnp.bfloat16)
    cache = jax.eval_shape(lambda: init_cache(config, ROWS, PROMPT + ANSWER, "bfloat16"))
    keys = jax.eval_shape(lambda: generate._sample_keys(0, list(range(ROWS)), ROWS))
    integers = [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in
                ((ROWS, ANSWER), (ROWS,), (), (ROWS, PROMPT), (1,))]  # fmt: skip
    answers, lengths, number, tokens, ends = integers
    ended = jax.ShapeDtypeStruct((ROWS,), bool)
    state = decode._State(cache, answers, lengths, ended, number)
    batch = decode.Batch(tokens, lengths, keys, ends)
    weights = (params, None)
    there = SingleDeviceSharding(device)
    placed = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there),
        (weights, batch, state, number),
    )
    settings = GenerationConfig(max_new_tokens=ANSWER, temperature=1.0, batch_size=ROWS)
    how = decode.How(graphdef, settings, config.vocab_size, ())
    lowered = decode._continue.lower(how, *placed)
    held = sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves((params, cache))
    )
    return read_program(lowered.compile().as_text()), held


@pytest.mark.slow
@pytest.mark.usefixtures("libtpu")
def test_a_token_reads_weights_and_cache():
    program, held = decoding(devices_of(read_topology("v5e-1"))[0])
    one, two = (bytes_moved(program, rounds) for rounds in (1.0, 2.0))
    embedding = 2 * HF["vocab_size"] * HF["hidden_size"]
    # All weights but the embedding, of which a row each; logits and scores come on top.
    assert 0.8 * (held - embedding) < two - one < 3.0 * held
