"""`python -m adakd_jax.train --config X.yaml`: distil a student from a teacher, measure it, export
it.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from adakd_jax.config import RunConfig
from adakd_jax.config.parse import parse

PROG = "python -m adakd_jax.train"
DESCRIPTION = """\
Distils a student from a teacher with token-adaptive knowledge distillation, measures it on
held-out rows before and after, and leaves a folder that transformers and vLLM load.
Start the same command again to continue a run that was stopped."""
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, check, run. Exit codes: 0 done or stopped by a signal with everything saved, 2 wrong
    settings or files (a full disk too), 130 Ctrl-C where that does not save.
    """
    arguments = sys.argv[1:] if argv is None else argv
    config, flags = parse(
        RunConfig,
        arguments,
        prog=PROG,
        description=DESCRIPTION,
        extra_flags={
            "dry_run": "check the settings, compile the step from shapes alone, show its memory"
        },
    )
    # Imported late: help and mistakes in settings do not wait for JAX.
    from adakd_jax.eval.command import keep_compilations, user_errors
    from adakd_jax.training.interrupt import end_when_terminated

    end_when_terminated()
    keep_compilations()
    with user_errors(PROG), _interruption():
        if flags["dry_run"]:
            from adakd_jax.training.dry_run import dry_run

            dry_run(config)
        else:
            from adakd_jax.processes import ending_together, join
            from adakd_jax.training.run import run_job

            join(config.processes)
            with ending_together(PROG), user_errors(PROG):
                run_job(config, [*PROG.split(), *arguments])


@contextmanager
def _interruption() -> Iterator[None]:
    """Ends with a line where Ctrl-C is not taken as a wish to save."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"{PROG}: interrupted; the same command continues", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    main()
