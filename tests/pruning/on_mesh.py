"""Looks at tiny models on meshes of eight devices: `python -m tests.pruning.on_mesh`.

Eight devices need a process of their own: their number is fixed when JAX starts. Prints, as JSON,
how far what each mesh finds is from what one device finds, and whether the same is kept.
"""

import json
import os

from tests.own_process import with_devices

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = with_devices(8)

import dataclasses

import jax
import numpy as np

from adakd_jax.config import MeshConfig
from adakd_jax.config.models import StudentPruned
from adakd_jax.pruning.choice import choose, written
from adakd_jax.pruning.fit import fitted_kernels
from adakd_jax.pruning.importance import measure_importance
from adakd_jax.pruning.removal import greedy_removal
from adakd_jax.pruning.sizes import asked_sizes
from adakd_jax.sharding import entered, make_mesh, rules_of, shardings_like
from tests.pruning.tiny import rows, whole

CASES = {
    "llama": (
        {"vocab_size": 64, "num_key_value_heads": 4},
        {"layers": 2, "ffw": 0.5, "heads": 0.5, "width": 0.5},
    ),
    "gpt_oss": (
        {"vocab_size": 64, "num_attention_heads": 8, "num_key_value_heads": 4},
        {"layers": 2, "ffw": 0.5, "experts": 0.5},
    ),
}
MESHES = {
    "data": MeshConfig(),
    "fsdp and tensor": MeshConfig(fsdp=2, tensor=4),
    "experts": MeshConfig(expert=2, tensor=2),
}


def looked_at(model, sizes, mesh_config):
    """Importance, layers left out, choice and fitted kernels, on one mesh."""
    mesh = None if mesh_config is None else make_mesh(mesh_config)
    if mesh is not None:
        split = shardings_like(model.params, mesh, rules_of(mesh_config, "teacher"))
        model = dataclasses.replace(model, params=jax.device_put(model.params, split))
    batches = [rows(8)]
    with entered(mesh):
        importance = measure_importance(model, batches)
        removed = greedy_removal(model, batches, 1)
        choice = choose(model.config, importance, asked_sizes(sizes, model.config))
        fitted = fitted_kernels(model, batches, choice)
    return importance, removed, choice, fitted


def error(found, alone):
    """The largest difference, as a share of the largest number."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True)
    return max(float(np.abs(one - two).max() / np.abs(two).max()) for one, two in pairs)


def main():
    told = {}
    for case, (changes, asked) in CASES.items():
        model, sizes = whole(case, **changes), StudentPruned(**asked)
        alone = looked_at(model, sizes, None)
        for name, mesh in MESHES.items():
            if name == "experts" and case != "gpt_oss":
                continue
            found = looked_at(model, sizes, mesh)
            told[f"{case}, {name}"] = {
                "same": written(found[2]) == written(alone[2])
                and [each.layer for each in found[1]] == [each.layer for each in alone[1]],
                "error": error(
                    (dataclasses.asdict(found[0]), found[1][0].forward_kl, found[3]),
                    (dataclasses.asdict(alone[0]), alone[1][0].forward_kl, alone[3]),
                ),
            }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
