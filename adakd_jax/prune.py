"""`python -m adakd_jax.prune --config X.yaml`: what matters in a teacher, and smaller models."""

import sys
from collections.abc import Sequence

from adakd_jax.config.parse import parse
from adakd_jax.config.prune import PruneCommand

PROG = "python -m adakd_jax.prune"
DESCRIPTION = """\
Looks at what the layers, neurons, heads, channels and experts of a run's teacher do on packed
training rows, cuts smaller models out of it, and measures them on the held-out rows before any
training: parameters, likelihood, distance to the teacher, estimated seconds a token. Prints that
as a table and draws it as a page. Choose a size by it, and train with student.kind pruned."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, look, print. Exit codes: 0 done, 2 wrong settings or files."""
    arguments = sys.argv[1:] if argv is None else argv
    config, _ = parse(PruneCommand, arguments, prog=PROG, description=DESCRIPTION)
    # Imported late: help and mistakes in settings do not wait for JAX.
    from adakd_jax.eval.command import keep_compilations, user_errors

    keep_compilations()
    with user_errors(PROG):
        from adakd_jax.training.pruning_report import report_pruning

        report_pruning(config)


if __name__ == "__main__":
    main()
