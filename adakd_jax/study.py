"""`python -m adakd_jax.study --config X.yaml`: methods × seeds over one base run, compared."""

import sys
from collections.abc import Sequence

from adakd_jax.config.parse import parse
from adakd_jax.config.report import render
from adakd_jax.config.study import StudyConfig

PROG = "python -m adakd_jax.study"
DESCRIPTION = """\
Trains every method with every seed from one base run, measures all students on the same held-out
rows, and leaves a table and plots. Start the same command again to continue a study that was
stopped: finished runs are skipped, the one under way goes on from its checkpoint. Settings of all
runs are flags as well: --run.KEY VALUE with the keys of adakd_jax.train."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, check every run of the grid, run it. Exit codes: 0 done or stopped by a signal with
    everything saved, 2 wrong settings or files.
    """
    arguments = sys.argv[1:] if argv is None else argv
    study, _ = parse(StudyConfig, arguments, prog=PROG, description=DESCRIPTION)
    from adakd_jax.studies.plan import plan

    runs, problems = plan(study)
    if problems:
        print(render(PROG, problems), file=sys.stderr)
        raise SystemExit(2)
    # Imported late: help and mistakes in settings do not wait for JAX.
    from adakd_jax.console import Console
    from adakd_jax.eval.command import keep_compilations, user_errors
    from adakd_jax.studies.overhead import run_overhead
    from adakd_jax.studies.quality import run_quality

    keep_compilations()
    console = Console()
    measure = run_overhead if study.measure == "overhead" else run_quality
    with user_errors(PROG):
        try:
            measure(study, runs, [*PROG.split(), *arguments], console)
        except KeyboardInterrupt:
            console.print("SIGINT: the same command continues")
            raise SystemExit(0) from None


if __name__ == "__main__":
    main()
