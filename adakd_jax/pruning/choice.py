"""What of a model is kept: its layers, neurons, heads, channels and experts, by number."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.layer_kinds import layers_with
from adakd_jax.pruning.importance import Importance
from adakd_jax.pruning.sizes import Sizes, sizes_of


class Choice(NamedTuple):
    """What is kept, by increasing numbers; None: all of it.

    `layers` are numbers of the whole model's layers; row i of the others is for the i-th of them
    that has such a part. `neurons` are [L, F], or [L, E, F] of the kept experts; `groups` [A, K]
    are key-value heads of the layers with attention; `channels` [D]; `experts` [L, E].
    """

    layers: tuple[int, ...]
    neurons: Int[np.ndarray, "*rows F"] | None = None
    groups: Int[np.ndarray, "A K"] | None = None
    channels: Int[np.ndarray, " D"] | None = None
    experts: Int[np.ndarray, "L E"] | None = None


def choose(
    config: DecoderConfig,
    importance: Importance,
    sizes: Sizes,
    layers: Sequence[int] | None = None,
) -> Choice:
    """Keeps what is most important; of equals, the first.

    Args:
        config: of the whole model.
        importance: of its parts.
        sizes: how much is kept.
        layers: numbers of those to keep, increasing; None: see `most_influential`.
    """
    whole = sizes_of(config)
    if layers is None:
        layers = most_influential(importance.influence, sizes.layers)
    rows = np.array(layers)
    attn = layers_with(config, "attn")
    experts = neurons = groups = None
    if sizes.experts != whole.experts:
        assert importance.experts is not None
        experts = largest(importance.experts[rows], sizes.experts)
    if sizes.ffw != whole.ffw:
        scores = importance.neurons[rows]
        if experts is not None:
            scores = np.take_along_axis(scores, experts[..., None], axis=1)
        neurons = largest(scores, sizes.ffw)
    if sizes.groups != whole.groups:
        of_kept = [attn.index(layer) for layer in layers if layer in attn]
        groups = largest(importance.groups[of_kept], sizes.groups)
    channels = None
    if sizes.width != whole.width:
        channels = largest(importance.channels, sizes.width)
    return Choice(tuple(layers), neurons, groups, channels, experts)


def most_influential(
    influence: Float[np.ndarray, " L"],
    count: int,
    can_keep: Callable[[Sequence[int]], bool] = lambda layers: True,
) -> list[int]:
    """Numbers of layers, of which those with the least influence were left out, one by one.

    Args:
        influence: of the layers of a model.
        count: how many are kept.
        can_keep: whether some layers make a model: in some families others need them.

    Raises:
        ValueError: none can be left out any more.
    """
    left = list(range(len(influence)))
    while len(left) > count:
        for layer in sorted(left, key=lambda n: influence[n]):
            fewer = [n for n in left if n != layer]
            if can_keep(fewer):
                left = fewer
                break
        else:
            raise ValueError(
                f"of the teacher's layers no fewer than {len(left)} make a model of its family; "
                f"valid: student.layers {len(left)} or more"
            )
    return left


def largest(scores: np.ndarray, count: int) -> Int[np.ndarray, "*rows count"]:
    """Numbers of the largest scores of each row, increasing; of equal ones, the first."""
    order = np.argsort(-scores, axis=-1, kind="stable")
    return np.sort(order[..., :count], axis=-1).astype(np.int32)


def sizes_of_choice(config: DecoderConfig, choice: Choice) -> Sizes:
    """The sizes of what is kept of a model."""
    counts = {
        name: kept.shape[-1]
        for name, kept in (
            ("ffw", choice.neurons),
            ("groups", choice.groups),
            ("width", choice.channels),
            ("experts", choice.experts),
        )
        if kept is not None
    }
    return sizes_of(config)._replace(layers=len(choice.layers), **counts)


def in_words(choice: Choice) -> str:
    """What is kept, in a few words."""
    parts = [f"layers {', '.join(map(str, choice.layers))}"]
    parts += [
        f"{kept.shape[-1]} {name}"
        for name, kept in (
            ("neurons", choice.neurons),
            ("key-value heads", choice.groups),
            ("channels", choice.channels),
            ("experts", choice.experts),
        )
        if kept is not None
    ]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def written(choice: Choice) -> dict[str, Any]:
    """As JSON values; arrays with their shape, as one may have no row."""
    return {
        name: {"shape": value.shape, "numbers": value.ravel().tolist()}
        if isinstance(value, np.ndarray)
        else value
        for name, value in choice._asdict().items()
    }


def read(values: Mapping[str, Any]) -> Choice:
    """The opposite of `written`."""
    arrays = {
        name: None
        if value is None
        else np.array(value["numbers"], np.int32).reshape(value["shape"])
        for name, value in values.items()
        if name != "layers"
    }
    return Choice(layers=tuple(values["layers"]), **arrays)
