"""Trains a tiny pair with experts on meshes of eight devices: `python -m
tests.training.experts_on_mesh`.

Eight devices need a process of their own: their number is fixed when JAX starts. Prints, as JSON,
how far the metrics of each mesh are from those of one device, and what kernels of experts cross.
"""

import json
import os

from tests.own_process import with_devices

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = with_devices(8)

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from adakd_jax.axes import batch_axes_of
from adakd_jax.config import DistillConfig, GenerationConfig, MeshConfig, OptimizerConfig
from adakd_jax.eval.generate import generate
from adakd_jax.models.decoder import abstract_decoder, random_params
from adakd_jax.models.families import decoder_config
from adakd_jax.planning.groups import first_group
from adakd_jax.planning.hlo import KINDS, read_program, runs, sides_of
from adakd_jax.sharding import entered, make_mesh, place_batch, rules_of, shardings_like
from adakd_jax.training.optimizer import build_optimizer, learning_rate_schedule
from adakd_jax.training.parts import StepParts
from adakd_jax.training.state import init_state
from adakd_jax.training.step import make_train_step
from tests.training.conftest import random_batch, tiny_config

STEPS = 6
OPTIMIZER = OptimizerConfig(learning_rate=1e-3)
DISTILL = DistillConfig.model_validate({"focus": {"kind": "latf", "ema": 0.5}})
MESHES = {
    "data": MeshConfig(),
    "expert": MeshConfig(expert=8),
    "all": MeshConfig(fsdp=2, expert=2, tensor=2),
}
TOLD = ("loss", "grad_norm", "balance_loss", "most_loaded_expert", "router_entropy")
WIDTH, WIDE, COUNT = 16, 40, 8


def model(layers, seed):
    hf = tiny_config(layers) | {
        "model_type": "qwen3_moe",
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": 64,
        "num_experts": COUNT,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": WIDE,
    }
    config = decoder_config(hf)
    return abstract_decoder(config)[0], random_params(config, jax.random.key(seed))


def train(mesh_config):
    """Metrics of every step, [STEPS, …], and the text of the program; None: on one device."""
    mesh = None if mesh_config is None else make_mesh(mesh_config)
    (teacher, teacher_params), (student, params) = model(3, 1), model(2, 2)
    parts = StepParts(
        distill=DISTILL,
        optimizer=build_optimizer(OPTIMIZER, DISTILL, STEPS),
        schedule=learning_rate_schedule(OPTIMIZER, STEPS),
        student=student,
        teacher=teacher,
        total_steps=STEPS,
        batch_axes=() if mesh is None else batch_axes_of(mesh),
        balance_weight=0.1,
    )
    state, shardings = init_state(params, parts.optimizer, seed=0), None
    if mesh is not None:
        shardings = shardings_like(state, mesh, rules_of(mesh_config, "student"))
        split = shardings_like(teacher_params, mesh, rules_of(mesh_config, "teacher"))
        state = jax.device_put(state, shardings)
        teacher_params = jax.device_put(teacher_params, split)
    step, history = make_train_step(parts, shardings), []
    with entered(mesh):
        for index in range(STEPS):
            batch = place_batch(random_batch(index, micro_batches=2, rows=8), mesh)
            if index == 0:
                step = step.lower(state, teacher_params, batch).compile()
            state, metrics = step(state, teacher_params, batch)
            history.append([float(metrics[name]) for name in TOLD])
    if mesh is not None and "expert" in mesh.axis_names:
        kernel = state.params["layers"]["ffw"]["experts"]["gate"]["kernel"]
        assert kernel.sharding.spec == P(None, "expert", "fsdp", "tensor"), kernel.sharding
    return np.array(history), step.as_text()


def whole_kernels(text):
    """Kinds of what devices exchange that is a kernel of all experts of a layer, or of a stack."""
    found = set()
    for each in runs(read_program(text), 1.0, into_fusions=True):
        kind = each.instruction.opcode.removesuffix("-start")
        if kind not in KINDS or len(first_group(each.instruction.attributes, 8)) < 2:
            continue
        sides = sides_of(each.instruction.shape)
        if COUNT in sides and {WIDTH, WIDE} <= set(sides):
            found.add(kind)
    return sorted(found)


def answers(mesh_config):
    """Greedy answers to prompts whose number no mesh divides."""
    graphdef, params = model(2, 2)
    mesh = None if mesh_config is None else make_mesh(mesh_config)
    if mesh is not None:
        split = shardings_like(params, mesh, rules_of(mesh_config, "student"))
        params = jax.device_put(params, split)
    prompts = [[5, 9, 3], [7], [1, 2, 3, 4, 5]]
    settings = GenerationConfig(max_new_tokens=12, batch_size=4)
    with entered(mesh):
        return generate(graphdef, params, prompts, settings, eos_ids=(3,), pad_id=0, seed=5)


def main():
    alone, _ = train(None)
    found = {"answers": answers(MESHES["all"]) == answers(None)}
    for name, config in MESHES.items():
        history, text = train(config)
        error = np.max(np.abs(history - alone) / np.abs(alone))
        found[name] = {"error": error, "whole kernels": whole_kernels(text)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
