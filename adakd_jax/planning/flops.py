"""Floating-point operations by formula and in traced functions: products of matrices, two a
multiply-add.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from adakd_jax.config import DistillConfig
from adakd_jax.config.distill import TopRatio
from adakd_jax.distill.policy import needs_survey, temperature_has_gradient
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.layer_kinds import heads_of, mixers_of


class HeadWork(NamedTuple):
    """What a loss asks of the output embeddings.

    Attributes:
        ranks: whether tokens are ranked first, which takes both models' logits of every response
            token.
        keep_ratio: share of the response tokens in the loss.
        keeps_logits: whether the logits of the ranking serve the loss too.
        trains_head: whether the student's output embedding has a gradient.
        through_temperatures: whether the gradient flows through the temperatures.
    """

    ranks: bool = False
    keep_ratio: float = 1.0
    keeps_logits: bool = False
    trains_head: bool = True
    through_temperatures: bool = False


def head_work(config: DistillConfig, *, trains_head: bool = True) -> HeadWork:
    """Of a method; a share that moves during the run counts as 1, where AdaKD's starts.

    Args:
        config: the loss.
        trains_head: False under adapters.
    """
    keep = config.focus.ratio if isinstance(config.focus, TopRatio) and not config.has_ce else 1.0
    keeps = config.keep_logits != "none"
    through = temperature_has_gradient(config)
    return HeadWork(needs_survey(config), keep, keeps, trains_head, through)


def head_operations(work: HeadWork, student: int, teacher: int, vocabulary: int) -> float:
    """Operations of the output embeddings per response token; widths Ds and Dt.

    Forward costs 2·D·V a model, backward 4·Ds·V: (6·Ds + 2·Dt)·V for a plain loss. Ranking adds
    (2·Ds + 2·Dt)·V, unless its logits are kept, and a gradient through the temperatures as much
    for the share that is kept. Without a teacher, Dt is 0. Of a head that is frozen the compiler
    leaves the gradient out, and backward costs 2·Ds·V.
    """
    forward = 2.0 * (student + teacher) * vocabulary
    backward = (4.0 if work.trains_head else 2.0) * student * vocabulary
    if not work.ranks:
        return forward + backward
    again = 0.0 if work.keeps_logits else forward
    visits = 2.0 if work.through_temperatures else 1.0
    return forward + work.keep_ratio * (visits * again + backward)


def attention_operations(config: DecoderConfig, length: int, *, whole: bool = False) -> float:
    """Operations of one forward pass of attention over a row, all layers that have it: 4·N·H a pair
    of a token and one that it sees. The row counts as one document.

    Args:
        config: of the model.
        length: of the row.
        whole: whether pairs are computed, too, that causality and windows hide.
    """
    pairs = 0
    for mixer, window in zip(mixers_of(config), config.windows, strict=True):
        if mixer == "delta":
            continue
        seen = np.arange(1, length + 1)
        shown = length * length if whole else int(np.minimum(seen, window or length).sum())
        pairs += shown * heads_of(config, mixer)[0]
    return 4.0 * config.num_heads * pairs


def product_operations(jaxpr: Any) -> float:
    """Operations of the products in a traced function, those in loops of known length as often as
    they run. Kernels and loops whose length depends on the data are left out; of what each platform
    does in its own way, the way with the most is counted: experts' products are those of a TPU's
    kernel, without the rows that fill up blocks.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            depth = math.prod(equation.invars[0].aval.shape[side] for side in contracted)
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * depth
        elif name.startswith("ragged_dot"):
            # A row of the first factor with one matrix of the second, or with a row of it.
            total += (
                2.0 * math.prod(equation.invars[0].aval.shape) * equation.outvars[0].aval.shape[-1]
            )
        elif name in ("while", "pallas_call"):
            continue
        elif name == "cond":
            total += max(product_operations(branch.jaxpr) for branch in params["branches"])
        else:
            factor = params["length"] if name == "scan" else 1
            if name == "shard_map":
                factor = math.prod(params["mesh"].shape[axis] for axis in params["manual_axes"])
            total += factor * sum(product_operations(inner) for inner in _inner(params))
    return total


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                yield one
