"""Snapshots of tokens, arranged for the page: the text once, numbers by step."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from adakd_jax.reports.gather import RunRecord

_DIGITS = 3
_NEWLINE = "⏎"  # shown in front of a line break that is a token's
_NOTHING = "⋯"  # shown for a token that is part of the next one's character


class TokenSpan(NamedTuple):
    """A token as it is printed; spaces in front of a word stand outside it.

    `index` counts response tokens and is None in the prompt. `difficulty` in percent colours the
    page before its script does.
    """

    space: str
    text: str
    index: int | None
    special: bool
    difficulty: int | None = None


class Passage(NamedTuple):
    """An example of a run: its tokens, and whether prompt and response go on outside them."""

    run: int
    example: int
    tokens: list[TokenSpan]
    cut: tuple[bool, bool]


def passages(runs: Sequence[RunRecord]) -> list[Passage]:
    """The examples of all runs that have snapshots, coloured as the last one says."""
    return [
        Passage(
            index,
            number,
            list(_spans(example, _highest(run.snapshots))),
            (example["cut"][0], example["cut"][1]),
        )
        for index, run in enumerate(runs)
        if run.snapshots
        for number, example in enumerate(run.snapshots[-1]["examples"])
    ]


def _spans(example: Mapping[str, Any], highest: float) -> Iterator[TokenSpan]:
    index_of = {place: index for index, place in enumerate(example["places"])}
    scores = example.get("score")
    for place, piece in enumerate(example["pieces"]):
        index = index_of.get(place)
        score = None if scores is None or index is None else scores[index]
        special = piece.startswith("<|") and piece.endswith("|>")
        percent = None if score is None else round(100 * score / highest)
        text = piece.lstrip(" ") or piece
        space = piece[: len(piece) - len(text)]
        yield TokenSpan(space, shown_piece(text), index, special, percent)


def shown_piece(piece: str) -> str:
    """A piece of text in which nothing is invisible but spaces."""
    return piece.replace("\n", f"{_NEWLINE}\n") if piece else _NOTHING


def token_data(runs: Sequence[RunRecord]) -> list[dict[str, Any] | None]:
    """What the script colours and explains tokens by; None for a run without snapshots.

    The likeliest tokens are flat lists [word, probability, word, …] with words as indices, to keep
    pages small.
    """
    return [_of_run(run) if run.snapshots else None for run in runs]


def _of_run(run: RunRecord) -> dict[str, Any]:
    words = _Words()
    snapshots = run.snapshots
    kept = len(snapshots[-1]["examples"])
    # Another number of examples after a restart: what an early snapshot lacks is not shown.
    snapshots = [each for each in snapshots if len(each["examples"]) == kept]
    examples = [
        [_at_step(snapshot["examples"][number], words) for snapshot in snapshots]
        for number in range(kept)
    ]
    distill = run.settings.get("distill") or {}
    training = run.settings.get("training") or {}
    return {
        "name": run.name,
        "steps": [snapshot["step"] for snapshot in snapshots],
        "total": max(training.get("steps") or 0, snapshots[-1]["step"]),
        "keepRatios": [snapshot["keep_ratio"] for snapshot in snapshots],
        "base": (distill.get("temperature") or {}).get("base", 1.0),
        "score": (distill.get("score") or {}).get("kind", "difficulty"),
        "spread": _spread(snapshots),
        "highest": _highest(snapshots),
        "words": words.listed,
        "examples": examples,
    }


class _Words:
    """Numbers words in the order in which they come."""

    def __init__(self) -> None:
        self.listed: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, word: str) -> int:
        if word not in self._numbers:
            self._numbers[word] = len(self.listed)
            self.listed.append(word)
        return self._numbers[word]


def _at_step(example: Mapping[str, Any], words: _Words) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name in ("score", "temperature", "student_nll", "teacher_nll"):
        if name in example:
            columns[name] = [None if x is None else round(x, _DIGITS) for x in example[name]]
    if "selected" in example:
        columns["selected"] = [int(kept) for kept in example["selected"]]
    for who in ("student", "teacher"):
        if who in example:
            columns[who] = [_flat(top, words) for top in example[who]]
    return columns


def _flat(top: Sequence[Sequence[Any]], words: _Words) -> list[float]:
    flat: list[float] = []
    for word, share in top:
        flat += [words.number(word), round(share or 0.0, _DIGITS)]
    return flat


def _spread(snapshots: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The lowest and the highest temperature of a kept token in any snapshot."""
    found = [
        tau
        for snapshot in snapshots
        for example in snapshot["examples"]
        for tau, kept in zip(
            example.get("temperature", ()), example.get("selected", ()), strict=True
        )
        if kept and tau is not None
    ]
    return (min(found), max(found)) if found else (1.0, 1.0)


def _highest(snapshots: Sequence[Mapping[str, Any]]) -> float:
    """The highest score in any snapshot, at least 1: some scores have no bound."""
    scores = [
        score
        for snapshot in snapshots
        for example in snapshot["examples"]
        for score in example.get("score", ())
        if score is not None
    ]
    return max([1.0, *scores])
