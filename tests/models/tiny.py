"""Tiny decoders that between them use every branch of the layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from adakd_jax.models import DecoderConfig, Rope, abstract_decoder, logits, random_params
from adakd_jax.models.config import ClampedSwiglu, DeltaNetSizes, Experts
from adakd_jax.models.layer_sizes import PerLayerInputs, WideHeads

SIZES = dict(
    vocab_size=23,
    embed_dim=16,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    ffw_dim=20,
    max_positions=32,
    attention_scale=8**-0.5,
    initializer_range=0.3,
)
# Llama's shape; one with everything that varies from layer to layer; GPT-2's; experts; layers of
# two kinds, twice `delta delta attn`.
CONFIGS = {
    "plain": DecoderConfig(family="llama", windows=(None,) * 3, **SIZES),
    "windows": DecoderConfig(
        family="gemma3_text",
        windows=(3, None, 3),
        ropes=(Rope(), Rope(50.0)),
        layer_ropes=(1, 0, 1),
        norm="rms_one_plus",
        qk_norm="head",
        post_norms=True,
        tied=True,
        attention_soft_cap=3.0,
        logit_soft_cap=4.0,
        embed_scale=4.0,
        **SIZES,
    ),
    "learned_positions": DecoderConfig(
        family="gpt2",
        windows=(None,) * 3,
        ropes=(),
        activation="gelu_tanh",
        gated_ffw=False,
        norm="layer",
        qkv_bias=True,
        out_bias=True,
        ffw_bias=True,
        tied=True,
        **(SIZES | dict(num_kv_heads=4)),
    ),
    "experts": DecoderConfig(
        family="gpt_oss",
        windows=(3, None, 3),
        qkv_bias=True,
        out_bias=True,
        ffw_bias=True,
        attention_sinks=True,
        experts=Experts(8, 2, True, router_bias=True, clamped=ClampedSwiglu(1.7, 0.5)),
        **SIZES,
    ),
    "delta_nets": DecoderConfig(
        family="qwen3_5_text",
        windows=(None,) * 6,
        mixers=("delta", "delta", "attn") * 2,
        delta_net=DeltaNetSizes(key_heads=2, value_heads=4, key_dim=6, value_dim=5, kernel=3),
        attention_gate=True,
        rotary_dim=4,
        norm="rms_one_plus",
        # The norm of a head of five numbers that are nearly 0 would amplify rounding.
        norm_eps=1e-2,
        qk_norm="head",
        **(SIZES | dict(num_layers=6)),
    ),
    # What is peculiar to Gemma 4: the last two layers read the keys and values of the first two.
    "readers": DecoderConfig(
        family="gemma4_text",
        windows=(3, None, 3, None),
        mixers=("attn", "wide", "reader", "wide_reader"),
        wide=WideHeads(12, 1, True, Rope(kind="proportional", share=0.5)),
        reader_ffw_dim=28,
        per_layer=PerLayerInputs(dim=6, vocab_size=23),
        layer_scalar=True,
        value_norm=True,
        qk_norm="head",
        norm_eps=1e-2,
        post_norms=True,
        tied=True,
        **(SIZES | dict(num_layers=4, attention_scale=1.0)),
    ),
}


def decoder_and_params(config):
    return abstract_decoder(config)[0], random_params(config, jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0)
def forward(graphdef, params, tokens, positions, segments):
    """Hidden states and logits."""
    decoder = nnx.merge(graphdef, params)
    hidden = decoder(*(jnp.asarray(a, jnp.int32) for a in (tokens, positions, segments)))
    return hidden, logits(hidden, decoder.head())


def packed_rows():
    """Row 0: documents of 5 and 4 tokens, 3 of padding; row 1: nothing but padding."""
    segments = np.array([[1] * 5 + [2] * 4 + [0] * 3, [0] * 12])
    positions = np.array([[*range(5), *range(4), *range(3)], list(range(12))])
    tokens = np.random.default_rng(0).integers(0, SIZES["vocab_size"], (2, 12))
    return tokens, positions, segments
