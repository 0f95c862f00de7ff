"""What a plan compiles for and with: devices, mesh, rows, steps and chunks, without any data."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from adakd_jax.config.plan import PlanConfig
from adakd_jax.data.loader import step_layout
from adakd_jax.distill.chunks import chunk_size_for
from adakd_jax.distill.devices import limits_of
from adakd_jax.models.attention import gpu_implementation
from adakd_jax.models.config import AttentionImplementation, DecoderConfig
from adakd_jax.planning.gpu_targets import GpuTarget, target_config
from adakd_jax.planning.hardware import VALID, Topology, TopologyError
from adakd_jax.sharding import AXES, make_mesh, row_shards
from adakd_jax.training.dry_run import AttentionOf, Shapes, run_shapes


def mesh_of(config: PlanConfig, topology: Topology) -> Mesh:
    """The mesh of a topology's devices, of one device too."""
    devices = devices_of(topology)
    mesh = make_mesh(config.mesh, devices)
    if mesh is not None:
        return mesh
    return Mesh(np.array(devices).reshape(1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3)


def devices_of(topology: Topology) -> Sequence[Any]:
    """Devices to compile for.

    Raises:
        TopologyError: there are none like these, or no libtpu.
    """
    if topology.kind == "cpu":
        devices = jax.devices("cpu")
        if len(devices) < topology.chips:
            raise TopologyError(
                f"topology {topology.name}: this process has {len(devices)} CPU devices; start it "
                f"with XLA_FLAGS=--xla_force_host_platform_device_count={topology.chips}"
            )
        return devices[: topology.chips]
    return _tpus(topology) if topology.gpu is None else _gpus(topology, topology.gpu)


def _tpus(topology: Topology) -> Sequence[Any]:
    options: dict[str, Any] = dict(topology.chip.options) if topology.chip else {}
    if math.prod(topology.shape) < 4:
        # A host has four chips unless it is told otherwise.
        options["chips_per_host_bounds"] = [*topology.shape, 1, 1][:3]
    try:
        found = topologies.get_topology_desc(
            topology.name, platform="tpu", num_slices=topology.slices, **options
        )
    except jax.errors.JaxRuntimeError as error:
        raise TopologyError(
            f"topology {topology.name}: libtpu has none: {error}; valid: {VALID}"
        ) from None
    except RuntimeError as error:
        raise TopologyError(
            f"topology {topology.name}: {error}; valid: cpu:N, or install libtpu, which compiles "
            "for TPUs on any Linux machine: pip install 'adakd_jax[tpu]'"
        ) from None
    return found.devices


def _gpus(topology: Topology, gpu: GpuTarget) -> Sequence[Any]:
    each, hosts = topology.shape
    try:
        found = topologies.get_topology_desc(
            platform="cuda", target_config=target_config(gpu), topology=f"1x{hosts}x{each}"
        )
    except NotImplementedError:
        raise TopologyError(
            f"topology {topology.name}: JAX's CUDA plugin, which compiles for GPUs on any Linux "
            'machine, is not installed: pip install "adakd_jax[cuda13]"'
        ) from None
    return found.devices


def layout_of(config: PlanConfig, mesh: Mesh) -> tuple[int, int]:
    """Micro-batches of a step, and rows of each."""
    training, shards = config.training, row_shards(mesh)
    if config.rows_per_device is not None:
        return 1, config.rows_per_device * shards
    rows = training.batch_rows or math.ceil((training.batch_examples or 1) * _fill(config))
    return step_layout(rows, training.micro_batch_rows, shards)


def _fill(config: PlanConfig) -> float:
    """Share of a row that an example takes, on average."""
    length = config.data.max_length
    return min(config.tokens_per_example or length, length) / length


def steps_of(config: PlanConfig, layout: tuple[int, int]) -> int | None:
    """Steps of the run; None if that would need the data."""
    training = config.training
    if training.steps is not None or training.epochs is None or config.examples is None:
        return training.steps
    examples = training.batch_examples
    if examples is None or config.rows_per_device is not None:
        examples = math.prod(layout) / _fill(config)
    return math.ceil(training.epochs * math.ceil(config.examples / examples) - 1e-6)


def shapes_for(config: PlanConfig, topology: Topology, layout: tuple[int, int]) -> Shapes:
    """Models and batch as the topology's platform has them."""
    attention = attention_on(topology, config.data.max_length)
    return run_shapes(config, platform=topology.platform, layout=layout, attention=attention)


def attention_on(topology: Topology, length: int) -> AttentionOf:
    """The attention that a run would choose there, for rows of so many tokens."""
    if topology.gpu is None:
        return "splash" if topology.platform == "tpu" else "xla"
    major, minor = topology.gpu.capability

    def chosen(model: DecoderConfig) -> AttentionImplementation:
        case = jnp.dtype(model.compute_dtype), model.head_dim, length, model.attention_soft_cap
        return gpu_implementation(major + minor / 10, *case)

    return chosen


def with_chunks(
    config: PlanConfig, topology: Topology, layout: tuple[int, int], mesh: Mesh
) -> PlanConfig:
    """Settings with the chunk size that the loss would choose on the topology's devices."""
    if config.distill.chunk_size is not None:
        return config
    shapes = shapes_for(config, topology, layout)
    sizes = [model.vocab_size for model in (shapes.student, shapes.teacher) if model is not None]
    limits = limits_of(mesh.devices.flat[0])
    chunk = chunk_size_for(min(sizes), _tokens_a_device(config, layout, mesh), limits)
    distill = config.distill.model_copy(update={"chunk_size": chunk})
    return config.model_copy(update={"distill": distill})


def _tokens_a_device(config: PlanConfig, layout: tuple[int, int], mesh: Mesh) -> int:
    return layout[1] // row_shards(mesh) * config.data.max_length


def chunks_of_micro_batch(config: PlanConfig, layout: tuple[int, int], mesh: Mesh) -> float:
    """Rounds of the loss over the response tokens of a micro-batch on one device."""
    assert config.distill.chunk_size is not None  # set before anything is compiled
    tokens = config.response_share * _tokens_a_device(config, layout, mesh)
    return math.ceil(tokens / config.distill.chunk_size)
