"""Keeps a teacher on disk for training without it: `python -m adakd_jax.cache_teacher`."""

import sys
from collections.abc import Sequence

from adakd_jax.config.parse import parse
from adakd_jax.config.teacher_cache import CacheCommand
from adakd_jax.user_path import user_path

PROG = "python -m adakd_jax.cache_teacher"
DESCRIPTION = """\
Shows the training examples of a run to its teacher and keeps the k likeliest next tokens at every
response token, with the mass of all others, in the folder --teacher.cache. Training with the same
settings then learns from these and does without the teacher.
Start the same command again to continue one that was stopped, or to verify what is there."""
COMPILATION_CACHE = "~/.cache/adakd_jax/xla"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, check, run. Exit codes: 0 done, 2 wrong settings or files."""
    config, _ = parse(
        CacheCommand, sys.argv[1:] if argv is None else argv, prog=PROG, description=DESCRIPTION
    )
    # Imported late: help and mistakes in flags do not wait for JAX.
    import jax

    jax.config.update("jax_compilation_cache_dir", str(user_path(COMPILATION_CACHE)))
    from adakd_jax.eval.command import user_errors
    from adakd_jax.teacher_cache.command import cache_teacher
    from adakd_jax.training.run import default_console

    with user_errors(PROG):
        cache_teacher(config, default_console())


if __name__ == "__main__":
    main()
