"""From verdicts in both orders to wins, ties and losses."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from adakd_jax.eval.bootstrap import bootstrap_interval
from adakd_jax.eval.judge.question import Verdict

Outcome = Literal["win", "tie", "loss"]

_RESAMPLES = 10_000


class Verdicts(NamedTuple):
    """What the judge said of a pair: with the first model's answer first, and with it second.

    None where no verdict could be read. `identical` answers are a tie that is not asked.
    """

    straight: Verdict | None
    swapped: Verdict | None
    identical: bool = False

    @property
    def outcome(self) -> Outcome:
        """Of the first model: a win or loss only where both orders say so."""
        if (self.straight, self.swapped) == ("1", "2"):
            return "win"
        return "loss" if (self.straight, self.swapped) == ("2", "1") else "tie"


class Judged(NamedTuple):
    """The first model against the second.

    Attributes:
      wins, ties, losses: pairs, of the first model.
      win_rate: wins and half the ties by all pairs, in [0, 1].
      low, high: its 95% bootstrap interval over pairs.
      identical: ties of answers that are the same, which were not asked.
      disagreed: ties because the two orders said different things.
      unparsable: ties because a reply held no verdict.
      first_place: how often the answer that stood first won, by all verdicts that were no tie;
        0.5 is a judge without a preference for a place; None without such a verdict.
    """

    wins: int
    ties: int
    losses: int
    win_rate: float
    low: float
    high: float
    identical: int
    disagreed: int
    unparsable: int
    first_place: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return self._asdict()


def judged(verdicts: Sequence[Verdicts]) -> Judged:
    """Counts outcomes.

    Args:
      verdicts: of each pair, at least one.
    """
    outcomes = [each.outcome for each in verdicts]
    points = np.asarray([{"win": 1.0, "tie": 0.5, "loss": 0.0}[each] for each in outcomes])
    low, high = bootstrap_interval(points, resamples=_RESAMPLES)
    asked = [each for each in verdicts if not each.identical]
    unparsable = [each for each in asked if None in (each.straight, each.swapped)]
    tied = [each for each in asked if each.outcome == "tie" and each not in unparsable]
    both = [verdict for each in asked for verdict in (each.straight, each.swapped)]
    decided = [verdict for verdict in both if verdict in ("1", "2")]
    return Judged(
        wins=outcomes.count("win"),
        ties=outcomes.count("tie"),
        losses=outcomes.count("loss"),
        win_rate=float(points.mean()),
        low=low,
        high=high,
        identical=len(verdicts) - len(asked),
        disagreed=sum((each.straight, each.swapped) != ("tie", "tie") for each in tied),
        unparsable=len(unparsable),
        first_place=decided.count("1") / len(decided) if decided else None,
    )
