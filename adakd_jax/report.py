"""Writes one HTML page about runs: `python -m adakd_jax.report RUN [RUN …]`."""

import sys
from collections.abc import Sequence

from pydantic import Field

from adakd_jax.config.parse import parse
from adakd_jax.config.stage import Stage

PROG = "python -m adakd_jax.report"
FILE = "report.html"


class ReportCommand(Stage):
    """Which runs, and where the page goes."""

    runs: list[str] = Field(
        min_length=1, description="run folders, local or gs://; several are compared"
    )
    output: str | None = Field(
        default=None, description=f"file to write; null: {FILE} in the first run folder"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    config, _ = parse(
        ReportCommand,
        sys.argv[1:] if argv is None else argv,
        prog=PROG,
        description="Writes what runs left as one HTML page, which needs no network: curves, "
        "evaluations, answers, and the tokens themselves.",
        positionals=("runs",),
        requires_config=False,
    )
    # Imported late: help and mistakes in flags do not wait for it.
    from adakd_jax.reports.gather import read_runs
    from adakd_jax.reports.page import render, write

    try:
        runs = read_runs(config.runs)
        output = config.output or f"{config.runs[0].rstrip('/')}/{FILE}"
        path = write(render(runs), output)
    except (OSError, ValueError) as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"written: {path}")


if __name__ == "__main__":
    main()
