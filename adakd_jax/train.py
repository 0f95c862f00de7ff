"""`python -m adakd_jax.train --config X.yaml`: distil a student from a teacher, measure it, export
it.
"""

import os
import sys
from collections.abc import Sequence

import jax

from adakd_jax.config import RunConfig
from adakd_jax.config.parse import parse

PROG = "python -m adakd_jax.train"
DESCRIPTION = """\
Distils a student from a teacher with token-adaptive knowledge distillation, measures it on
held-out rows before and after, and leaves a folder that transformers and vLLM load.
Start the same command again to continue a run that was stopped."""
COMPILATION_CACHE = "~/.cache/adakd_jax/xla"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, check, run. Exit codes: 0 done or stopped by a signal with everything saved, 2 wrong
    settings or files.
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
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser(COMPILATION_CACHE))
    from adakd_jax.eval.command import user_errors

    with user_errors(PROG):
        if flags["dry_run"]:
            from adakd_jax.training.dry_run import dry_run

            dry_run(config)
        else:
            from adakd_jax.processes import ending_together, join
            from adakd_jax.training.run import run_job

            join(config.processes)
            with ending_together(PROG):
                run_job(config, [*PROG.split(), *arguments])


if __name__ == "__main__":
    main()
