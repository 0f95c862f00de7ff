"""Trains a tiny pair on several meshes of eight devices: `python -m tests.training.on_mesh`.

Eight devices need a process of their own: their number is fixed when JAX starts. Prints losses and
kept ratios of each mesh as JSON.
"""

import dataclasses
import json
import os

from tests.own_process import with_devices

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = with_devices(8)

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from adakd_jax.axes import BATCH_AXES
from adakd_jax.config import DistillConfig, MeshConfig, OptimizerConfig
from adakd_jax.distill import mapped_layers
from adakd_jax.models.config import PROJECTIONS, Lora
from adakd_jax.models.decoder import abstract_decoder, random_params
from adakd_jax.models.families import decoder_config
from adakd_jax.models.lora import split_adapters
from adakd_jax.planning.groups import first_group
from adakd_jax.planning.hlo import KINDS, bytes_of, read_program, runs
from adakd_jax.sharding import entered, make_mesh, place_batch, rules_of, shardings_like
from adakd_jax.training.learned import build_learner, initial_learned
from adakd_jax.training.optimizer import build_optimizer, learning_rate_schedule
from adakd_jax.training.parts import StepParts
from adakd_jax.training.state import init_state
from adakd_jax.training.step import make_train_step
from tests.training.conftest import random_batch, tiny_config

STEPS = 20
OPTIMIZER = OptimizerConfig(learning_rate=1e-3)
LORA = Lora(rank=2, alpha=4.0, dropout=0.3, targets=PROJECTIONS[:7])
METHODS = {
    "adakd": DistillConfig.model_validate(
        {"focus": {"kind": "latf", "ema": 0.5, "tolerance": 0.01}, "ce_weight": 0.2}
    ),
    "adapters": DistillConfig.model_validate({"focus": {"kind": "latf", "ema": 0.5}}),
    "egad with adapters": DistillConfig.model_validate(
        {
            "focus": {"kind": "curriculum"},
            "temperature": {"kind": "entropy"},
            "feature_weight": 0.5,
        }
    ),
}
MESHES = {
    "data": MeshConfig(),
    "fsdp": MeshConfig(fsdp=8),
    "tensor": MeshConfig(fsdp=2, tensor=2),
    "own rules": MeshConfig(fsdp=4, tensor=2, teacher_rules={"embed": None, "vocab": "fsdp"}),
}


def model(layers, seed, lora=None):
    hf = tiny_config(layers) | {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": 64,
    }
    config = dataclasses.replace(decoder_config(hf), lora=lora)
    return abstract_decoder(config)[0], random_params(config, jax.random.key(seed))


def train(distill, mesh_config, lora=None):
    """Losses and kept ratios; on one device without a mesh."""
    mesh = None if mesh_config is None else make_mesh(mesh_config)
    (teacher, teacher_params), (student, params) = model(3, 1), model(2, 2, lora)
    base, trained = (None, params) if lora is None else split_adapters(params)
    schedule = learning_rate_schedule(OPTIMIZER, STEPS)
    parts = StepParts(
        distill=distill,
        optimizer=build_optimizer(OPTIMIZER, distill, STEPS),
        schedule=schedule,
        student=student,
        teacher=teacher,
        total_steps=STEPS,
        learner=build_learner(distill, OPTIMIZER, schedule),
        layers=mapped_layers(1, 2, 3) if distill.has_features else (),
        batch_axes=() if mesh is None else BATCH_AXES,
    )
    learned = initial_learned(distill, 16, 16, jax.random.key(0))
    state = init_state(trained, parts.optimizer, seed=0, learned=learned, learner=parts.learner)
    shardings = None
    if mesh is not None:
        shardings = shardings_like(state, mesh, rules_of(mesh_config, "student"))
        split = shardings_like(teacher_params, mesh, rules_of(mesh_config, "teacher"))
        state = jax.device_put(state, shardings)
        teacher_params = jax.device_put(teacher_params, split)
        base = jax.device_put(base, shardings_like(base, mesh, rules_of(mesh_config, "student")))
    step, history = make_train_step(parts, shardings), []
    with entered(mesh):
        for index in range(STEPS):
            batch = place_batch(random_batch(index, micro_batches=2, rows=8), mesh)
            if index == 0:  # a batch of another shape or sharding is an error from here on
                step = step.lower(state, teacher_params, batch, base).compile()
            state, metrics = step(state, teacher_params, batch, base)
            history.append((float(metrics["loss"]), float(metrics["keep_ratio"])))
    exchanged = [] if mesh is None else large_collectives(step.as_text())
    if mesh is not None:
        up = state.params["layers"]["ffw"]["up"]
        if lora is None:
            assert up["kernel"].sharding.spec == P(None, "fsdp", "tensor"), up
        else:
            assert up["adapter"]["a"].sharding.spec == P(None, "fsdp", None), up
            assert up["adapter"]["b"].sharding.spec == P(None, None, "tensor"), up
        replicated = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim == 0]
        assert all(leaf.sharding.is_fully_replicated for leaf in replicated)
    return np.array(history), exchanged


def large_collectives(text):
    """Kind and runs a step of what devices exchange that is as large as the embedding, or a part of
    it for each device: gradients.
    """
    found = []
    for each in runs(read_program(text), 1.0, into_fusions=True):
        kind = each.instruction.opcode.removesuffix("-start")
        alone = len(first_group(each.instruction.attributes, jax.device_count())) < 2
        if kind in KINDS and not alone and bytes_of(each.instruction.shape) >= 64 * 16 * 4 / 8:
            found.append((kind, bytes_of(each.instruction.shape), each.times))
    return found


def main():
    found = {}
    for name, distill in METHODS.items():
        lora = LORA if "adapters" in name else None
        alone, _ = train(distill, None, lora)
        found[name] = {"moved": len(set(alone[:, 1])), "errors": {}, "exchanged": {}}
        for mesh, config in MESHES.items():
            if name == "adakd" or mesh == "tensor" or (distill.has_features and mesh == "data"):
                history, exchanged = train(distill, config, lora)
                error = np.max(np.abs(history - alone) / np.abs(alone))
                found[name]["errors"][mesh] = error
                found[name]["exchanged"][mesh] = exchanged
    print(json.dumps(found))


if __name__ == "__main__":
    main()
