"""A model of 2 GiB is looked at without a second copy of it: by what the compiler sets aside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.axes import TokenBatch
from adakd_jax.models.decoder import abstract_decoder
from adakd_jax.models.families import decoder_config
from adakd_jax.pruning.fit import _summed, _Sums
from adakd_jax.pruning.observe import observe
from adakd_jax.pruning.removal import _forward_kl

LAYERS, WIDTH, FFW, KEPT = 32, 1024, 4096, 512
CONFIG = decoder_config(
    dict(
        model_type="llama",
        vocab_size=4096,
        hidden_size=WIDTH,
        intermediate_size=FFW,
        num_hidden_layers=LAYERS,
        num_attention_heads=16,
        num_key_value_heads=8,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
)
BATCH = TokenBatch(*(jax.ShapeDtypeStruct((2, 32), jnp.int32) for _ in range(4)))


@pytest.mark.parametrize("what", ["observe", "leave out", "fit"])
def test_a_model_is_not_copied(what):
    graphdef, params = abstract_decoder(CONFIG)
    size = sum(leaf.size * 4 for leaf in jax.tree.leaves(params))
    assert 1.8 * 2**30 < size < 2.2 * 2**30
    if what == "observe":
        lowered = observe.lower(graphdef, params, BATCH)
    elif what == "leave out":
        whole = jax.ShapeDtypeStruct((2, 32, WIDTH), jnp.float32)
        lowered = _forward_kl.lower(graphdef, params, BATCH, whole, np.ones(LAYERS, bool))
    else:
        sizes = (1, KEPT, KEPT), (1, KEPT, WIDTH)
        sums = _Sums(*(jax.ShapeDtypeStruct(each, jnp.float32) for each in sizes))
        slots, kept = np.full(LAYERS, -1, np.int32), np.zeros((1, KEPT), np.int32)
        lowered = _summed.lower(graphdef, ("ffw", "down"), params, BATCH, slots, kept, sums)
    used = lowered.compile().memory_analysis()
    assert used.temp_size_in_bytes + used.output_size_in_bytes < size / 10
