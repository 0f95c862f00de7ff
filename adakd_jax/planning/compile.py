"""The real train step of a run, compiled for devices that are not there."""

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from adakd_jax.axes import HEAD_AXIS
from adakd_jax.config.plan import PlanConfig
from adakd_jax.models.size import parameters_in_words
from adakd_jax.planning.collectives import Collective, collectives_of
from adakd_jax.planning.hardware import Topology
from adakd_jax.planning.hlo import read_program
from adakd_jax.planning.inputs import (
    chunks_of_micro_batch,
    layout_of,
    mesh_of,
    shapes_for,
    steps_of,
    with_chunks,
)
from adakd_jax.planning.memory import Memory, argument_bytes, memory_from_refusal, memory_of
from adakd_jax.planning.products import compiled_operations
from adakd_jax.planning.roofline import Roofline, roofline
from adakd_jax.planning.traffic import bytes_moved
from adakd_jax.planning.work import Operations, step_operations
from adakd_jax.sharding import check_expert_axis, check_model, entered, rules_of
from adakd_jax.training.dry_run import Shapes, abstract_step


@dataclass(frozen=True)
class Plan:
    """What a run needs on a topology. What only a program that fits tells is None without one.

    Attributes:
        topology: where.
        mesh: devices along each mesh axis.
        layout: micro-batches of a step, and rows of each.
        length: tokens of a row.
        remat: what the backward pass computes again.
        steps: of the run; None if its length is not known.
        models: teacher and student, in words.
        attention: implementation of each.
        memory: of one device.
        operations: of one step, on all devices.
        compiled_operations: of the products in a GPU's program, of one device; None elsewhere.
        moved: bytes of one device.
        collectives: of one device.
        roofline: None also for chips without a data sheet.
        compile_seconds: how long the compilation took.
        most_rows: rows a device has room for, if they were searched.
    """

    topology: Topology
    mesh: dict[str, int]
    layout: tuple[int, int]
    length: int
    remat: str
    steps: int | None
    models: dict[str, str]
    attention: dict[str, str]
    memory: Memory
    operations: Operations
    compiled_operations: float | None
    moved: float | None
    collectives: list[Collective] | None
    roofline: Roofline | None
    compile_seconds: float
    most_rows: int | None = None

    @property
    def rows_per_device(self) -> int:
        """Rows of a micro-batch on each device that shares them."""
        shared = [size for axis, size in self.mesh.items() if axis != HEAD_AXIS]
        return self.layout[1] // math.prod(shared)

    @property
    def tokens(self) -> int:
        """Of one step, padding included."""
        return math.prod(self.layout) * self.length


def plan_for(config: PlanConfig, topology: Topology) -> Plan:
    """Compile the train step for a topology and read from it what it needs.

    Raises:
        TopologyError: there are no such devices, or no libtpu or CUDA plugin to compile for them.
        MeshError: the mesh does not divide the devices or the models.
        ModelNotFoundError: a model is out of reach and its settings have no `architecture`.
    """
    mesh = mesh_of(config, topology)
    layout = layout_of(config, mesh)
    config = with_chunks(config, topology, layout, mesh)
    shapes = shapes_for(config, topology, layout)
    _check(config, shapes, mesh)
    train_step, arguments = abstract_step(config, shapes, mesh)
    capacity = None if topology.chip is None else topology.chip.hbm / topology.chip.devices
    held = argument_bytes(*arguments)
    start = time.monotonic()
    compiled, refusal = _compile(train_step, arguments, mesh)
    seconds = time.monotonic() - start
    attention = _attention(shapes)
    operations = step_operations(config, layout, attention)
    plan = Plan(
        topology=topology,
        mesh={axis: int(size) for axis, size in mesh.shape.items()},
        layout=layout,
        length=config.data.max_length,
        remat=config.student.remat,
        steps=steps_of(config, layout),
        models=_in_words(shapes),
        attention=attention,
        memory=_memory(held, compiled, refusal, capacity),
        operations=operations,
        compiled_operations=None,
        moved=None,
        collectives=None,
        roofline=None,
        compile_seconds=seconds,
    )
    text = None if compiled is None else compiled.as_text()
    return plan if text is None else _with_traffic(config, plan, mesh, text)


def _with_traffic(config: PlanConfig, plan: Plan, mesh: Mesh, text: str) -> Plan:
    program = read_program(text)
    rounds = chunks_of_micro_batch(config, plan.layout, mesh)
    moved = bytes_moved(program, rounds)
    collectives = collectives_of(program, mesh, plan.topology, rounds)
    chip, chips = plan.topology.chip, plan.topology.chips
    times = None
    if chip is not None:
        times = roofline(chip, chips, plan.operations, moved, collectives)
    counted = compiled_operations(program, rounds) if plan.topology.gpu is not None else None
    return dataclasses.replace(
        plan, compiled_operations=counted, moved=moved, collectives=collectives, roofline=times
    )


def _check(config: PlanConfig, shapes: Shapes, mesh: Mesh) -> None:
    check_expert_axis((shapes.teacher, shapes.student), mesh)
    for who, model in (("teacher", shapes.teacher), ("student", shapes.student)):
        if model is not None:
            check_model(model, mesh, rules_of(config.mesh, who), who)


def _compile(
    train_step: Any, arguments: tuple[Any, ...], mesh: Mesh
) -> tuple[jax.stages.Compiled | None, str]:
    """The program; or none, and what the compiler said about the memory."""
    with entered(mesh):
        lowered = train_step.lower(*arguments)
        try:
            return lowered.compile(), ""
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return None, str(error)


def _memory(
    held: dict[str, float],
    compiled: jax.stages.Compiled | None,
    refusal: str,
    capacity: float | None,
) -> Memory:
    if compiled is not None:
        return memory_of(held, compiled, capacity)
    memory = memory_from_refusal(held, refusal)
    return Memory(held, capacity, fits=False) if memory is None else memory


def _attention(shapes: Shapes) -> dict[str, str]:
    """Its implementation in both models."""
    models = {"teacher": shapes.teacher, "student": shapes.student}
    return {
        who: str(model.attention_implementation)
        for who, model in models.items()
        if model is not None
    }


def _in_words(shapes: Shapes) -> dict[str, str]:
    """Size and shape of both models."""
    found = {}
    for who, model in (("teacher", shapes.teacher), ("student", shapes.student)):
        if model is not None:
            found[who] = (
                f"{model.family}, {parameters_in_words(model)}, {model.num_layers} layers, width "
                f"{model.embed_dim}, vocabulary {model.vocab_size:,}, {model.compute_dtype}"
            )
    return found
