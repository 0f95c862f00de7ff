"""The mesh and the cheapest remat with which a run fits, and the most rows it has room for."""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator

from jax.sharding import AbstractMesh

from adakd_jax.config.plan import PlanConfig
from adakd_jax.console import Console
from adakd_jax.planning.compile import Plan, plan_for
from adakd_jax.planning.hardware import Topology
from adakd_jax.planning.inputs import devices_of, layout_of, mesh_of, shapes_for
from adakd_jax.planning.memory import argument_bytes, gib
from adakd_jax.sharding import AXES, MeshError, check_model, row_shards, rules_of
from adakd_jax.training.dry_run import abstract_step

Found = tuple[PlanConfig, Plan]
REMATS = ("none", "dots", "full")  # from the fastest to the smallest
# Weights may take this share of the memory before a mesh is worth compiling for, and are no reason
# to split further below the second.
ROOM, ROOMY = 0.9, 0.6
TENSORS = (1, 2)


def search_for(config: PlanConfig, topology: Topology, console: Console) -> Found:
    """Settings with which the run fits, the fastest by the estimate, and their plan; if none fits,
    those that come nearest.

    A batch that does not fit at once is split into micro-batches of one row a device.
    """
    tried: list[Found] = []
    for variant in _variants(config, topology):
        tried += _cheapest_remat(variant, topology, console)
    if not any(plan.memory.fits for _, plan in tried):
        nearest = min(tried, key=lambda found: found[1].memory.total)[0]
        tried += _cheapest_remat(_one_row_a_device(nearest, topology), topology, console)
    fitting = [found for found in tried if found[1].memory.fits]
    if not fitting:
        return min(tried, key=lambda found: found[1].memory.total)
    best_config, best = min(fitting, key=lambda found: _seconds(found[1]))
    if best.memory.capacity is None:
        return best_config, best

    def compiled(rows: int) -> Plan:
        return _told(best_config.model_copy(update={"rows_per_device": rows}), topology, console)[1]

    return best_config, dataclasses.replace(best, most_rows=most_rows(best, compiled))


def most_rows(plan: Plan, compiled: Callable[[int], Plan]) -> int:
    """Rows a device has room for, by compiling with more: memory grows with rows along a line, so
    that two sizes tell where it ends, and a third is tried.

    Args:
        plan: one that fits.
        compiled: the plan for so many rows a device.
    """
    fits, rows = plan.rows_per_device, 2 * plan.rows_per_device
    sizes = {fits: plan.memory.total}
    capacity, refused = plan.memory.capacity, sys.maxsize
    assert capacity is not None  # a search without one has nothing to fill
    while fits < rows < refused and len(sizes) < 6:
        found = compiled(rows)
        sizes[rows] = found.memory.total
        if found.memory.fits:
            fits = rows
        else:
            refused = rows
        (first, small), *_, (last, large) = sorted(sizes.items())
        slope = max(1.0, (large - small) / (last - first))
        end = int(first + (capacity - small) / slope)
        rows = max(fits + 1, end) if refused == sys.maxsize else min(refused - 1, max(fits, end))
    return fits


def _variants(config: PlanConfig, topology: Topology) -> Iterator[PlanConfig]:
    """The settings on meshes that are worth a compilation: the one that is given, or some."""
    if max(config.mesh.fsdp, config.mesh.expert, config.mesh.tensor) > 1:
        yield config
        return
    weights = _weights(config, topology)
    capacity = topology.chip.hbm / topology.chip.devices if topology.chip else math.inf
    meshes = _meshes(config, topology)
    small = [shape for shape in meshes if weights / math.prod(shape) <= ROOM * capacity] or meshes
    alone = [fsdp for fsdp, tensor in small if tensor == 1]
    roomy = [fsdp for fsdp in alone if weights / fsdp <= ROOMY * capacity]
    chosen = {(min(roomy, default=max(alone, default=1)), 1), (max(alone, default=1), 1)}
    chosen |= {max((shape for shape in small if shape[1] == 2), default=(1, 1))}
    for fsdp, tensor in sorted(chosen & set(small)):
        yield _on_mesh(config, fsdp, tensor)


def _meshes(config: PlanConfig, topology: Topology) -> list[tuple[int, int]]:
    """Sizes of fsdp and tensor within one slice that divide both models."""
    devices = len(devices_of(topology)) // topology.slices
    shapes = shapes_for(config, topology, (1, 1))
    models = [("teacher", shapes.teacher), ("student", shapes.student)]
    found = []
    for tensor in TENSORS:
        for fsdp in (1 << power for power in range(devices.bit_length())):
            if devices % (fsdp * tensor):
                continue
            mesh = AbstractMesh((devices // (fsdp * tensor), fsdp, tensor), AXES)
            try:
                for who, model in models:
                    if model is not None:
                        check_model(model, mesh, rules_of(config.mesh, who), who)
            except MeshError:
                continue
            found.append((fsdp, tensor))
    return found


def _weights(config: PlanConfig, topology: Topology) -> float:
    """Bytes of weights and optimizer, all together."""
    config = _on_mesh(config, 1, 1)
    mesh = mesh_of(config, topology)
    shapes = shapes_for(config, topology, layout_of(config, mesh))
    return sum(argument_bytes(*abstract_step(config, shapes, mesh)[1]).values())


def _cheapest_remat(config: PlanConfig, topology: Topology, console: Console) -> list[Found]:
    """Plans with ever more computed again, up to the first that fits."""
    tried = []
    for remat in REMATS:
        student = config.student.model_copy(update={"remat": remat})
        tried.append(_told(config.model_copy(update={"student": student}), topology, console))
        if tried[-1][1].memory.fits:
            break
    return tried


def _told(config: PlanConfig, topology: Topology, console: Console) -> Found:
    """A plan, and a line about it."""
    with console.status(f"compiling the train step for {topology.title}"):
        plan = plan_for(config, topology)
    mesh = " × ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    console.print(
        f"{topology.name}: {mesh}, {plan.rows_per_device} rows a device, remat {plan.remat}: "
        f"{gib(plan.memory.total)} GiB, {'fits' if plan.memory.fits else 'does not fit'} "
        f"({plan.compile_seconds:.0f} s)",
    )
    return config, plan


def _on_mesh(config: PlanConfig, fsdp: int, tensor: int) -> PlanConfig:
    mesh = config.mesh.model_copy(update={"fsdp": fsdp, "tensor": tensor})
    return config.model_copy(update={"mesh": mesh})


def _one_row_a_device(config: PlanConfig, topology: Topology) -> PlanConfig:
    shards = row_shards(mesh_of(config, topology))
    training = config.training.model_copy(update={"micro_batch_rows": shards})
    return config.model_copy(update={"training": training, "rows_per_device": None})


def _seconds(plan: Plan) -> float:
    """Estimated seconds a token; what has no estimate is judged by its memory."""
    if plan.roofline is None:
        return plan.memory.total
    return plan.roofline.in_turn / plan.tokens
