"""A decoder small enough to compile in seconds, with weights large enough that its tokens vary."""

import dataclasses

from adakd_jax.models.config import DecoderConfig

TINY = DecoderConfig(
    family="llama",
    vocab_size=61,
    embed_dim=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    ffw_dim=32,
    max_positions=256,
    windows=(None, None),
    attention_scale=0.5,
    initializer_range=0.4,
)


def with_ends(model, ends):
    """The model with other end tokens in its generation config."""
    source = dataclasses.replace(model.source, generation_config={"eos_token_id": ends})
    return dataclasses.replace(model, source=source)
