"""The static description of rotary positions."""

from dataclasses import dataclass
from typing import Literal

RopeKind = Literal[
    "default", "linear", "llama3", "yarn", "longrope", "dynamic", "proportional", "none"
]


@dataclass(frozen=True)
class Rope:
    """Rotary position frequencies: base θ, then one of the scalings below, or no rotation at all.

    `factor` divides the frequencies. `linear`: all of them. `llama3`: those whose wavelength is
    above `original_positions / low_freq_factor`, with a smooth passage down to `original_positions
    / high_freq_factor`. `yarn` (arXiv 2309.00071): those that turn less than `beta_slow` times in
    `original_positions`, with a passage up to `beta_fast`, whose ends are whole numbers of a pair
    if `truncate`. `longrope` (arXiv 2402.13753): each by its own of `short_factors`, or of
    `long_factors` where a document is longer than `original_positions`. `dynamic`: θ grows instead,
    as far as a document is longer than `original_positions`. In decoding, where the length is not
    known, both go by the size of the cache. `proportional`: the first `share` of the pairs turn,
    the others not at all. `none` rotates nothing.

    `attention_factor` multiplies what is rotated.
    """

    theta: float = 10_000.0
    kind: RopeKind = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    attention_factor: float = 1.0
    share: float = 1.0


NO_ROTATION = Rope(kind="none")


@dataclass(frozen=True)
class QueryScale:
    """Queries grow with their position p: 1 + β·ln(1 + ⌊p / original_positions⌋)."""

    beta: float
    original_positions: int
