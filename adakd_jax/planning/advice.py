"""What to change where a run does not fit."""

import math

from adakd_jax.config.plan import PlanConfig
from adakd_jax.planning.compile import Plan
from adakd_jax.planning.gpu_targets import FRACTION_VARIABLES
from adakd_jax.planning.memory import TEMPORARIES, gib

# Shares of a GPU's memory that JAX may take: the rest is for CUDA, its libraries and NCCL.
SHARES = (0.9, 0.95)


def advice(config: PlanConfig, plan: Plan) -> list[str]:
    """What is largest, and what to change about it, the most promising first; nothing if the run
    fits.
    """
    memory = plan.memory
    if memory.fits:
        return []
    largest = max(memory.parts, key=lambda name: memory.parts[name])
    lines = [f"largest: {largest}, {gib(memory.parts[largest])} GiB"]
    lines += [
        f"  {gib(one.size)} GiB  {one.shape}  {one.operation}".rstrip()
        for one in memory.largest[:3]
    ]
    lines += _more_of_it(plan)
    missing = memory.total - (memory.capacity or 0.0)
    if largest == TEMPORARIES or memory.parts.get(TEMPORARIES, 0.0) > missing:
        lines += _fewer_temporaries(config, plan)
    return lines + _smaller_parts(config, plan)


def _more_of_it(plan: Plan) -> list[str]:
    """A larger share of a GPU's memory, where that is enough."""
    gpu, memory = plan.topology.gpu, plan.memory
    if gpu is None or memory.capacity is None:
        return []
    enough = [share for share in SHARES if memory.total <= share * gpu.memory]
    if not enough or enough[0] * gpu.memory <= memory.capacity:
        return []
    return [
        f"{FRACTION_VARIABLES[0]}={enough[0]:g} in the environment: JAX then takes "
        f"{gib(enough[0] * gpu.memory)} of {gib(gpu.memory)} GiB in place of "
        f"{gib(memory.capacity)}, which is enough"
    ]


def _fewer_temporaries(config: PlanConfig, plan: Plan) -> list[str]:
    """Gradients, activations and gathered weights."""
    found = []
    if plan.remat != "full":
        found.append("--student.remat full: keep the input of each layer only")
    if plan.rows_per_device > 1 and config.rows_per_device is not None:
        found.append(f"--rows_per_device {plan.rows_per_device // 2}: fewer rows at a time")
    elif plan.rows_per_device > 1:
        shards = plan.layout[1] // plan.rows_per_device
        half = math.ceil(plan.rows_per_device / 2)  # of an odd number, two parts all the same
        found.append(
            f"--training.micro_batch_rows {shards * half}: {half} rows a device at a time in "
            f"place of {plan.rows_per_device}, with the same result"
        )
    if plan.mesh["tensor"] == 1 and plan.topology.chips > plan.topology.slices:
        found.append(
            "--mesh.tensor 2 (or what divides the heads of both models): layers, gathered output "
            "embeddings and their gradients in parts"
        )
    if config.distill.keep_logits != "none":
        found.append("--distill.keep_logits none: compute the logits of kept tokens again")
    return found


def _smaller_parts(config: PlanConfig, plan: Plan) -> list[str]:
    """Weights and the optimizer's state, which a larger mesh splits further."""
    found = []
    devices = math.prod(plan.mesh.values())
    held = sum(size for name, size in plan.memory.parts.items() if name != TEMPORARIES)
    split = plan.mesh["fsdp"] * plan.mesh["tensor"]
    widest = devices // plan.topology.slices // plan.mesh["tensor"] // plan.mesh.get("expert", 1)
    if widest > plan.mesh["fsdp"]:
        less = held * split / (widest * plan.mesh["tensor"])
        found.append(
            f"--mesh.fsdp {widest}: weights and optimizer in {widest} parts, about {gib(less)} "
            f"GiB a device in place of {gib(held)}"
        )
    if config.teacher is not None and config.teacher.dtype == "float32":
        found.append("--teacher.dtype bfloat16: half the teacher")
    if config.optimizer.average_decay is not None:
        found.append("--optimizer.average_decay null: no second copy of the student")
    capacity = plan.memory.capacity
    larger = "a larger slice" if plan.topology.gpu is None else "more GPUs"
    if capacity is not None and held * split / (devices // plan.topology.slices) > capacity:
        least = math.ceil(held * split / capacity)
        found.append(f"{larger}: weights and optimizer alone need {least} devices like these")
    elif not found:
        found.append(f"{larger}, or {plan.topology.unit}s with more memory")
    return found
