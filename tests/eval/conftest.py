"""A decoder small enough to compile in seconds, with weights large enough that its tokens vary."""

import jax
import pytest

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.decoder import abstract_decoder, random_params

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


@pytest.fixture(scope="session")
def tiny_config():
    return TINY


@pytest.fixture(scope="session")
def tiny_model():
    graphdef, _ = abstract_decoder(TINY)
    return graphdef, random_params(TINY, jax.random.key(3))
