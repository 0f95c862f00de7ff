import jax
import jax.numpy as jnp
import numpy as np

from adakd_jax.models.layer_views import layer_views
from tests.models.tiny import CONFIGS

CONFIG = CONFIGS["plain"]


def stacked():
    return {
        "kernel": jnp.arange(3 * 64 * 48.0).reshape(3, 64, 48),
        "bias": jnp.arange(6.0)[:, None].reshape(3, 2),
    }


def test_views_are_the_layers_in_the_same_memory():
    params = stacked()
    views = layer_views(CONFIG, params)
    assert len(views) == 3
    for layer, view in enumerate(views):
        for name, values in params.items():
            np.testing.assert_array_equal(view[name], values[layer])
        start = params["kernel"].unsafe_buffer_pointer() + layer * 64 * 48 * 4
        assert view["kernel"].unsafe_buffer_pointer() == start


def test_parameters_can_be_donated_once_their_views_are_gone():
    params = stacked()
    before = params["kernel"].unsafe_buffer_pointer()
    views = layer_views(CONFIG, params)
    float(views[0]["kernel"].sum())
    del views
    moved = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(params)
    assert params["kernel"].is_deleted()
    assert moved["kernel"].unsafe_buffer_pointer() == before  # in place, not in a copy


def test_there_are_none_where_they_would_be_copies():
    assert jax.jit(lambda tree: jnp.int32(layer_views(CONFIG, tree) is None))(stacked()) == 1
