"""Meshes of devices, and the one table that says what is split over them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import GetAttrKey

from adakd_jax.axes import EXPERT_AXIS, WIDTH_AXIS, TokenBatch, batch_axes_of
from adakd_jax.config.mesh import MeshConfig
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.parameter_axes import PARAMETER_AXES

AXES = ("data", "fsdp", "tensor")
# Logical axis → mesh axis. What is not named is not split.
RULES: Mapping[str, str | None] = {
    "vocab": "tensor",
    "embed": WIDTH_AXIS,
    "heads": "tensor",
    "kv_heads": "tensor",
    "ffw": "tensor",
    "experts": EXPERT_AXIS,
}
Rules = Mapping[str, str | None]


class MeshError(ValueError):
    """Devices, models or rows do not divide as configured; the message says what would."""


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh | None:
    """The mesh [data, fsdp, tensor] of all devices; None for a single one. `expert` stands before
    `tensor` where it is more than 1.

    With several slices, `data` goes across them: all other traffic stays within a slice.

    Args:
        config: its sizes.
        devices: by default all there are.

    Raises:
        MeshError: the sizes do not make up the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"fsdp": config.fsdp, "expert": config.expert, "tensor": config.tensor}
    if config.expert == 1:
        del sizes["expert"]
    count, inner = len(devices), math.prod(sizes.values())
    data = config.data if config.data is not None else max(1, count // inner)
    if data * inner != count:
        raise MeshError(
            f"mesh: {' × '.join(f'{axis} {n}' for axis, n in ({'data': data} | sizes).items())} "
            f"is {data * inner} devices, but there are {count}; valid: {_valid_sizes(count)}"
        )
    if data % config.slices:
        raise MeshError(
            f"mesh.slices: {config.slices} slices do not divide data = {data}; "
            f"valid: {_divisors(data)}"
        )
    if count == 1:
        return None
    axes, shape = ("data", *sizes), (data, *sizes.values())
    if config.slices > 1:
        within = (data // config.slices, *sizes.values())
        across = (config.slices, *[1] * len(sizes))
        grid = mesh_utils.create_hybrid_device_mesh(
            within, across, devices, allow_split_physical_axes=True
        )
    else:
        # An axis of 16 on 8 × 8 chips has to take a side and a part of the other.
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(np.asarray(grid), axes, axis_types=(AxisType.Auto,) * len(axes))


def row_shards(mesh: Mesh | AbstractMesh | None) -> int:
    """Over how many devices the rows of a batch are split."""
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in batch_axes_of(mesh))


def rows_held(mesh: Mesh | None, rows: int) -> list[int]:
    """Which rows of a batch of `rows` the devices of this process hold, increasing: all of them
    without a mesh, and where `tensor` alone goes across processes.
    """
    if mesh is None:
        return list(range(rows))
    split = NamedSharding(mesh, P(batch_axes_of(mesh)))
    held: Any = split.addressable_devices_indices_map((rows,))
    return sorted({row for (part,) in held.values() for row in range(rows)[part]})


def rules_of(config: MeshConfig, who: str) -> Rules:
    """The table of a model: `who` is "student" or "teacher"."""
    rules = RULES | getattr(config, f"{who}_rules")
    if config.expert > 1:
        return rules
    # The mesh then has no such axis.
    return {axis: None if over == EXPERT_AXIS else over for axis, over in rules.items()}


def parameter_spec(path: str, rules: Rules) -> P:
    """How a parameter, by its dotted path, is split."""
    return P(*(rules.get(axis) for axis in PARAMETER_AXES[path]))


def check_model(config: DecoderConfig, mesh: Mesh | AbstractMesh, rules: Rules, who: str) -> None:
    """What the rules split must divide.

    Raises:
        MeshError: names every axis that does not, with the sizes that would.
    """
    sizes = {
        "vocab": config.vocab_size,
        "embed": config.embed_dim,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "ffw": config.ffw_dim,
    }
    if config.wide is not None:
        sizes["kv_heads"] = math.gcd(config.num_kv_heads, config.wide.num_kv_heads)
    if config.per_layer is not None:
        own = config.num_layers * config.per_layer.dim
        sizes["embed"] = math.gcd(config.embed_dim, own)
        sizes["vocab"] = math.gcd(config.vocab_size, config.per_layer.vocab_size)
    if config.reader_ffw_dim is not None:
        sizes["ffw"] = math.gcd(config.ffw_dim, config.reader_ffw_dim)
    if config.experts is not None:
        sizes["experts"] = config.experts.count
        own = config.experts.shared_dim or 0, config.experts.dim or 0
        sizes["ffw"] = math.gcd(sizes["ffw"], *own)
    problems = []
    for axis, size in sizes.items():
        over = rules.get(axis)
        if over is not None and size % mesh.shape[over]:
            problems.append(
                f"{who}: {size} {axis} cannot be split over {over} = {mesh.shape[over]}; "
                f"valid: {over} one of {_divisors(size)}"
                + ("" if over == EXPERT_AXIS else f", or mesh.{who}_rules.{axis} null")
            )
    if problems:
        raise MeshError("\n".join(problems))


def check_expert_axis(models: Iterable[DecoderConfig | None], mesh: Mesh | AbstractMesh) -> None:
    """`expert` needs a model that has some.

    Raises:
        MeshError: there is none.
    """
    has = any(model is not None and model.experts is not None for model in models)
    if EXPERT_AXIS in mesh.axis_names and not has:
        raise MeshError(
            f"mesh.expert: {mesh.shape[EXPERT_AXIS]} devices are to share experts, but neither "
            "model has any; valid: 1, and mesh.fsdp to share weights"
        )


def shardings_like(tree: Any, mesh: Mesh, rules: Rules) -> Any:
    """A sharding for each leaf of a tree that holds parameters anywhere, such as a `TrainState`.

    A leaf whose path ends in that of a parameter (the parameter itself, its moments, its average)
    is split like it, and so are both halves of a quantised kernel; everything else, LATF's state
    included, is replicated.
    """

    def one(path: tuple[Any, ...], leaf: Any) -> Sharding:
        names = [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)]
        for first in range(len(names)):
            name = ".".join(names[first:])
            if name in PARAMETER_AXES and len(PARAMETER_AXES[name]) == len(leaf.shape):
                split = NamedSharding(mesh, parameter_spec(name, rules))
                of_scales = isinstance(path[-1], GetAttrKey) and path[-1].name == "scale"
                return split_where_possible(split, leaf.shape) if of_scales else split
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(one, tree)


def split_where_possible(split: Sharding, shape: tuple[int, ...]) -> Sharding:
    """A sharding without the mesh axes that do not divide `shape`.

    For the scales of a quantised kernel, which lie along its axes but are fewer.
    """
    if not isinstance(split, NamedSharding):
        return split
    axes = (*split.spec, *[None] * (len(shape) - len(split.spec)))
    names = [axis if isinstance(axis, tuple) else (axis,) if axis else () for axis in axes]
    counts = [math.prod(split.mesh.shape[name] for name in each) for each in names]
    kept = [
        axis if size % count == 0 else None
        for axis, size, count in zip(axes, shape, counts, strict=True)
    ]
    return NamedSharding(split.mesh, P(*kept))


def replicated_like(shardings: Any) -> NamedSharding:
    """The sharding of what every device of the same mesh has whole."""
    return NamedSharding(jax.tree.leaves(shardings)[0].mesh, P())


def entered(mesh: Mesh | None) -> AbstractContextManager[Any]:
    """The context in which models run on a mesh."""
    return nullcontext() if mesh is None else jax.set_mesh(mesh)


def place_batch(batch: TokenBatch, mesh: Mesh | None) -> TokenBatch:
    """Put the rows that this process holds, [A, rows held, T, …], to its devices as their part of
    the global batch [A, rows, T, …], whose rows the devices divide; without a mesh, leave them.
    """
    if mesh is None:
        return batch
    split = NamedSharding(mesh, P(None, batch_axes_of(mesh)))
    shards = row_shards(mesh)
    rows = batch.tokens.shape[1] // len(rows_held(mesh, shards)) * shards
    place = {row: index for index, row in enumerate(rows_held(mesh, rows))}

    def put(held: np.ndarray) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            wanted = range(rows)[index[1]]
            return held[:, place[wanted[0]] : place[wanted[0]] + len(wanted)]

        return jax.make_array_from_callback((len(held), rows, *held.shape[2:]), split, part)

    return jax.tree.map(lambda array: put(np.asarray(array)), batch)


def _divisors(size: int) -> str:
    return ", ".join(str(n) for n in range(1, min(size, 512) + 1) if size % n == 0)


def _valid_sizes(count: int) -> str:
    return f"three numbers whose product is {count}, for instance data {count}, fsdp 1, tensor 1"
