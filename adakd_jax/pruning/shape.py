"""The sizes of a student that is to have some number of parameters, known before any weight is."""

import bisect
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from adakd_jax.config.models import StudentPruned
from adakd_jax.hf.student_config import can_keep, chosen_config
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families import decoder_config
from adakd_jax.models.layer_kinds import layers_with
from adakd_jax.models.size import parameter_count
from adakd_jax.pruning.choice import Choice, most_influential
from adakd_jax.pruning.observe import has_neurons_of_experts
from adakd_jax.pruning.sizes import Sizes, asked_sizes, fixed_sizes, sizes_of, unit_of

# Neurons or experts are not taken below the first of these shares by themselves, nor layers below
# the second.
_LEAST_INNER, _LEAST_LAYERS = 1 / 3, 1 / 2


def pruned_sizes(source: StudentPruned, hf_config: Mapping[str, Any]) -> Sizes:
    """The sizes that settings ask for.

    Under `parameters`, what is not given is chosen so: neurons of the feed-forwards (of a mixture,
    experts) go first, down to a third; then layers, to a half; then the width. At last, neurons or
    experts make up what rounding has left. docs/pruning.md says what that order was measured on.

    Args:
        source: the settings of the student.
        hf_config: config.json of the teacher.

    Raises:
        ValueError: sizes that the teacher has not, or a number of parameters that no sizes give.
    """
    config = decoder_config(hf_config)
    asked = asked_sizes(source, config)
    if source.parameters is None:
        return asked

    def count(sizes: Sizes) -> int:
        return parameter_count(decoder_config(chosen_config(hf_config, evenly(hf_config, sizes))))

    return _of_parameters(source, source.parameters, asked, config, count)


def planned_choice(source: StudentPruned, hf_config: Mapping[str, Any]) -> Choice:
    """What a student keeps as far as is known before anything is measured: as much as it will."""
    return evenly(hf_config, pruned_sizes(source, hf_config))


def evenly(hf_config: Mapping[str, Any], sizes: Sizes) -> Choice:
    """What a student of some sizes keeps, as long as nothing is measured: layers from everywhere,
    where these make a model, and the first of everything else.
    """
    config = decoder_config(hf_config)
    whole = sizes_of(config)
    layers = np.linspace(0, whole.layers - 1, sizes.layers).round().astype(int).tolist()
    makes_a_model = functools.partial(can_keep, hf_config)
    if not makes_a_model(layers):
        layers = most_influential(np.zeros(whole.layers), sizes.layers, makes_a_model)
    attn = sum(layer in layers_with(config, "attn") for layer in layers)

    def first(name: str, *rows: int) -> Any:
        count = getattr(sizes, name)
        if count == getattr(whole, name):
            return None
        return np.broadcast_to(np.arange(count, dtype=np.int32), (*rows, count))

    of_each = (len(layers),)
    if has_neurons_of_experts(config):
        of_each = (*of_each, sizes.experts)
    return Choice(
        tuple(layers),
        neurons=first("ffw", *of_each),
        groups=first("groups", attn),
        channels=first("width"),
        experts=first("experts", len(layers)),
    )


def _of_parameters(
    source: StudentPruned,
    wanted: int,
    asked: Sizes,
    config: DecoderConfig,
    count: Callable[[Sizes], int],
) -> Sizes:
    whole = sizes_of(config)
    inner = "experts" if has_neurons_of_experts(config) else "ffw"
    unit = unit_of(getattr(whole, inner))
    least = 1 if config.experts is None else config.experts.active
    free = {name for name in ("layers", inner, "width") if getattr(source, name) is None}
    free -= set(fixed_sizes(config))
    numbers = range(max(unit, least), getattr(whole, inner) + 1, unit)
    step = unit_of(whole.width, config.num_heads)
    ways = {
        inner: [n for n in numbers if n >= _LEAST_INNER * getattr(whole, inner)],
        "layers": range(math.ceil(_LEAST_LAYERS * whole.layers), whole.layers + 1),
        "width": range(step, whole.width + 1, step),
    }
    sizes = asked
    for name, steps in ways.items():
        if name in free and count(sizes) > wanted:
            sizes = _largest(sizes, name, steps, wanted, count)
    if inner in free:
        sizes = min(
            (sizes._replace(**{inner: n}) for n in _near(numbers, getattr(sizes, inner))),
            key=lambda sizes: abs(count(sizes) - wanted),
        )
    found = count(sizes)
    if abs(found - wanted) > 0.1 * wanted:
        raise ValueError(
            f"student.parameters is {wanted:,}, but sizes like the teacher's give {found:,} at "
            f"nearest; valid: about that, or other sizes given ({', '.join(sorted(free))} are free)"
        )
    return sizes


def _largest(
    sizes: Sizes, name: str, steps: Sequence[int], wanted: int, count: Callable[[Sizes], int]
) -> Sizes:
    """With the largest of the steps that fits; with the smallest, if none does."""
    fits = bisect.bisect_right(steps, wanted, key=lambda n: count(sizes._replace(**{name: n})))
    return sizes._replace(**{name: steps[max(fits - 1, 0)]})


def _near(numbers: range, number: int) -> list[int]:
    """Those next to a number."""
    return sorted(numbers, key=lambda n: abs(n - number))[:7]
