"""Mixers on meshes of four devices: `python -m tests.models.mixers_on_mesh delta_nets`, or another
of `CONFIGS`.

Four devices need a process of their own. Prints for each mesh, as JSON, the largest difference of a
gradient from that of one device, as a share of its largest number, and how often the compiled
program moves what only heads of a layer have.
"""

import dataclasses
import json
import os
import re
import sys

from tests.own_process import with_devices

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = with_devices(4)

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from adakd_jax.axes import BATCH_AXES
from adakd_jax.config.mesh import MeshConfig
from adakd_jax.models import logits
from adakd_jax.sharding import RULES, make_mesh, shardings_like
from tests.models.tiny import CONFIGS, decoder_and_params

ROWS, LENGTH = 4, 80  # more than a chunk
MESHES = {"fsdp": MeshConfig(fsdp=4), "tensor": MeshConfig(fsdp=2, tensor=2), "data": MeshConfig()}
# Of whole heads in chunks: five dimensions and more.
_MOVED = r"= f32\[\d+(?:,\d+){4,}\]\S* (?:all-gather|all-to-all|collective-permute)\("


def main():
    config = dataclasses.replace(CONFIGS[sys.argv[1]], vocab_size=24, remat="full")
    if config.wide is not None:
        # `tensor` splits heads of keys, and what layers have of their own a vocabulary too.
        wide = dataclasses.replace(config.wide, num_kv_heads=2)
        own = dataclasses.replace(config.per_layer, vocab_size=24)
        config = dataclasses.replace(config, wide=wide, per_layer=own)
    graphdef, params = decoder_and_params(config)
    tokens = jax.random.randint(jax.random.key(0), (ROWS, LENGTH), 0, 24)
    places = np.broadcast_to(np.arange(LENGTH), tokens.shape)
    inputs = tokens, jnp.asarray(places), jnp.asarray(1 + (places > 30))

    def loss(params, *inputs):
        model = nnx.merge(graphdef, params)
        return jnp.square(logits(model(*inputs), model.head())).mean()

    expected = jax.jit(jax.grad(loss))(params, *inputs)
    found = {}
    for name, config in MESHES.items():
        mesh = make_mesh(config)
        assert mesh is not None
        split = shardings_like(params, mesh, RULES)
        with jax.set_mesh(mesh):
            own = jax.device_put((params, inputs), (split, NamedSharding(mesh, P(BATCH_AXES))))
            run = jax.jit(jax.grad(loss), out_shardings=split).lower(own[0], *own[1]).compile()
            got = run(own[0], *own[1])
        differences = jax.tree.map(
            lambda one, other: float(np.abs(one - other).max() / np.abs(other).max()), got, expected
        )
        found[name] = max(jax.tree.leaves(differences)), len(re.findall(_MOVED, run.as_text()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
