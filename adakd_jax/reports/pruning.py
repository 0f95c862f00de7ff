"""The page about a teacher that is to be made smaller."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from adakd_jax.pruning.candidates import Candidate
from adakd_jax.pruning.importance import Importance
from adakd_jax.pruning.removal import Removal
from adakd_jax.pruning.sizes import Sizes
from adakd_jax.reports.charts import Chart, Line, svg
from adakd_jax.reports.page import environment, script_and_digest, styles

_MILLION = 1e6


class CandidateTable(NamedTuple):
    """Titles of the columns, and rows of a name and its cells."""

    titles: list[str]
    rows: list[tuple[str, list[str]]]


def render_pruning(
    teacher: str,
    importance: Importance,
    removed: Sequence[Removal],
    candidates: Sequence[Candidate],
) -> str:
    """The page, of which the first candidate is the teacher itself."""
    script, digest = script_and_digest(("charts.js",))
    return (
        environment()
        .get_template("pruning.html")
        .render(
            title=f"How small can {teacher.rsplit('/', 1)[-1]} be?",
            facts=list(_facts(teacher, importance, candidates[0])),
            parts=_drawn(part_charts(importance, removed)),
            curves=_drawn(size_charts(candidates)),
            table=candidate_table(candidates),
            style=styles(),
            script=script,
            script_digest=digest,
        )
    )


def candidate_table(candidates: Sequence[Candidate]) -> CandidateTable:
    """The numbers of all candidates, as text."""
    titles = ["kept", "parameters", "layers", "ffw", "NLL", "forward KL", "reverse KL"]
    titles += ["agreement", "s / token"]
    return CandidateTable(titles, [(_name(each), _cells(each)) for each in candidates])


def _name(candidate: Candidate) -> str:
    if candidate.share == 1.0:
        return candidate.what
    return f"{candidate.share:g} of {candidate.what}"


def _cells(candidate: Candidate) -> list[str]:
    measured, sizes = candidate.measured, candidate.sizes
    return [
        f"{candidate.parameters / _MILLION:,.1f}M",
        str(sizes.layers),
        f"{sizes.ffw:,}",
        f"{measured.nll:.3f}",
        f"{measured.forward_kl or 0.0:.3f}",
        f"{measured.reverse_kl or 0.0:.3f}",
        f"{100 * (measured.top1_agreement or 0.0):.1f}%",
        f"{candidate.seconds:.3g}",
    ]


def part_charts(importance: Importance, removed: Sequence[Removal]) -> list[Chart]:
    """Influence by layer, heads by layer, how unequal neurons are, and layers left out in turn."""
    layers = range(len(importance.influence))
    charts = [
        Chart(
            "Influence of layers",
            "1 − cos(input, output)",
            [Line("influence", [(n, float(importance.influence[n])) for n in layers], dots=True)],
            within=(0.0,),
            across="layer",
        ),
        Chart(
            "Neurons of feed-forwards",
            "share of a layer's norm",
            [
                Line(f"weakest {share:.0%}", _weakest(importance.neurons, share), colour=number)
                for number, share in enumerate((0.25, 0.5))
            ],
            "What the neurons give that would go first: the less, the more can go.",
            within=(0.0,),
            across="layer",
        ),
    ]
    if removed:
        points = [(float(n + 1), each.forward_kl) for n, each in enumerate(removed)]
        order = ", ".join(str(each.layer) for each in removed)
        charts.append(
            Chart(
                "Layers left out one by one",
                "forward KL, nats",
                [Line("without so many layers", points, dots=True)],
                f"In this order: {order}.",
                within=(0.0,),
                across="layers left out",
            )
        )
    return charts


def _weakest(neurons: np.ndarray, share: float) -> list[tuple[float, float]]:
    """By layer, the share of all norms that the smallest ones have together."""
    ordered = np.sort(neurons.reshape(len(neurons), -1), axis=-1)
    count = round(share * ordered.shape[-1])
    shares = ordered[:, :count].sum(-1) / np.maximum(ordered.sum(-1), 1e-30)
    return [(float(layer), float(each)) for layer, each in enumerate(shares)]


def size_charts(candidates: Sequence[Candidate]) -> list[Chart]:
    """Quality by number of parameters, a line for each thing that was reduced."""
    whole, rest = candidates[0], candidates[1:]
    kinds = list(dict.fromkeys(each.what for each in rest))

    def line(number: int, kind: str, name: str) -> Line:
        those = [whole, *(each for each in rest if each.what == kind)]
        points = [(each.parameters / _MILLION, getattr(each.measured, name)) for each in those]
        return Line(kind, sorted(points), colour=number, dots=True)

    return [
        Chart(
            title,
            "nats per token",
            [line(number, kind, name) for number, kind in enumerate(kinds)],
            across="million parameters",
        )
        for name, title in (("forward_kl", "Forward KL to the teacher"), ("nll", "NLL"))
    ]


def _facts(teacher: str, importance: Importance, whole: Candidate) -> Iterable[tuple[str, str]]:
    sizes: Sizes = whole.sizes
    yield "teacher", teacher
    yield "parameters", f"{whole.parameters:,}"
    named = {name: n for name, n in sizes._asdict().items() if n}
    named["key-value heads"] = named.pop("groups")
    yield "sizes", ", ".join(f"{name} {n:,}" for name, n in named.items())
    yield "looked at", f"{importance.tokens:,} tokens of training rows"
    yield "measured on", f"{whole.measured.tokens:,} held-out response tokens"


def _drawn(charts: Sequence[Chart]) -> list[tuple[Chart, Markup]]:
    return [(chart, svg(chart)) for chart in charts]


def as_values(
    importance: Importance, removed: Sequence[Removal], candidates: Sequence[Candidate]
) -> dict[str, Any]:
    """The numbers of the page, as JSON values."""
    return {
        "tokens": importance.tokens,
        "influence": importance.influence.tolist(),
        "removed": [each._asdict() for each in removed],
        "candidates": [
            each._asdict() | {"sizes": each.sizes._asdict(), "measured": each.measured.to_dict()}
            for each in candidates
        ],
    }
