"""The outcome of an overhead study: Markdown, CSV and a plot."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from adakd_jax.config.study import StudyConfig
from adakd_jax.studies.figures import save_figure
from adakd_jax.studies.origin import method_lines, origin_lines
from adakd_jax.studies.plan import PlannedRun
from adakd_jax.studies.tables import as_csv, head, row
from adakd_jax.user_path import user_path
from adakd_jax.whole_file import write_whole

_GIB = 2**30
_HOW_TO_READ = """\
Seconds are medians over {rounds} rounds of {steps} timed steps each from the start of training, \
with the fastest and the slowest round; ratios are taken within a round, then their median. \
Memory is what the compiler reports: temporaries beside the arguments (weights, optimizer state, \
batch)."""


class Overheads(NamedTuple):
    """By method: bytes of "temporaries" and "arguments", and seconds a step, round by round."""

    memory: dict[str, dict[str, int]]
    rounds: list[dict[str, float]]


class Line(NamedTuple):
    """A method: seconds a step as (median, least, most), also over the baseline's; GiB."""

    method: str
    seconds: tuple[float, float, float]
    ratio: tuple[float, float, float]
    temporaries: float
    temporaries_ratio: float
    arguments: float


def overhead_lines(study: StudyConfig, measured: Overheads) -> list[Line]:
    """What was measured, method by method in the order of the study."""
    base = np.asarray([seconds[study.baseline] for seconds in measured.rounds])
    base_bytes = measured.memory[study.baseline]["temporaries"]
    lines = []
    for method in study.methods:
        seconds = np.asarray([round_[method] for round_ in measured.rounds])
        memory = measured.memory[method]
        lines.append(
            Line(
                method,
                _spread(seconds),
                _spread(seconds / base),
                memory["temporaries"] / _GIB,
                memory["temporaries"] / base_bytes,
                memory["arguments"] / _GIB,
            )
        )
    return lines


def write_overhead_report(
    study: StudyConfig, runs: Sequence[PlannedRun], measured: Overheads, argv: Sequence[str]
) -> list[epath.Path]:
    """Write report.md, methods.csv and overhead.png; returns them.

    Args:
        study: what was asked for.
        runs: one of each method.
        measured: all that was measured, at least one round.
        argv: the exact command.
    """
    folder = user_path(study.output)
    lines = overhead_lines(study, measured)
    text = "\n".join(_report(study, runs, lines, len(measured.rounds), argv)) + "\n"
    write_whole(folder / "report.md", text)
    write_whole(folder / "methods.csv", as_csv(_rows(lines)))
    save_figure(_figure(study, lines), folder / "overhead.png")
    return [folder / name for name in ("report.md", "methods.csv", "overhead.png")]


def _spread(values: np.ndarray) -> tuple[float, float, float]:
    return float(np.median(values)), float(values.min()), float(values.max())


def _report(
    study: StudyConfig,
    runs: Sequence[PlannedRun],
    lines: Sequence[Line],
    rounds: int,
    argv: Sequence[str],
) -> Iterator[str]:
    yield from origin_lines(study, runs, argv)
    yield ""
    against = f"over {study.baseline}"
    yield from head(
        ["method", "s a step", against, "temporaries, GiB", against, "arguments, GiB"],
    )
    for line in lines:
        yield row(
            [
                line.method,
                "{:.2f} [{:.2f}, {:.2f}]".format(*line.seconds),
                "{:.3f}× [{:.3f}, {:.3f}]".format(*line.ratio),
                f"{line.temporaries:.2f}",
                f"{line.temporaries_ratio:.3f}×",
                f"{line.arguments:.2f}",
            ]
        )
    yield "\n" + _HOW_TO_READ.format(rounds=rounds, steps=study.overhead.steps) + "\n"
    yield "![time and memory over the baseline](overhead.png)\n"
    yield "## Methods\n"
    yield from method_lines(study)


def _rows(lines: Sequence[Line]) -> Iterator[dict[str, str | float]]:
    for line in lines:
        spread = zip(("", "_least", "_most"), line.seconds, line.ratio, strict=True)
        values = {"method": line.method}
        for suffix, seconds, ratio in spread:
            values |= {f"seconds{suffix}": seconds, f"ratio{suffix}": ratio}
        yield values | {
            "temporaries_gib": line.temporaries,
            "temporaries_ratio": line.temporaries_ratio,
            "arguments_gib": line.arguments,
        }


def _figure(study: StudyConfig, lines: Sequence[Line]) -> Figure:
    figure = Figure((8, 1.2 + 0.32 * len(lines)), layout="constrained")
    time, memory = figure.subplots(1, 2, sharey=True)
    for index, line in enumerate(lines):
        middle, least, most = line.ratio
        error = [[middle - least], [most - middle]]
        time.errorbar(middle, index, xerr=error, fmt="o", color="C0", capsize=3)
        memory.plot(line.temporaries_ratio, index, "o", color="C1")
    for panel, title in ((time, "seconds a step"), (memory, "temporaries")):
        panel.axvline(1.0, color="0.8", zorder=1)
        panel.set_title(f"{title} over {study.baseline}", fontsize="medium")
        panel.set_xlim(left=0.0)
        panel.grid(axis="x", alpha=0.3)
    time.set_yticks(range(len(lines)), [line.method for line in lines])
    time.invert_yaxis()
    return figure
