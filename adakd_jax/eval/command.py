"""What the commands share: how mistakes of the user end them, and where compilations are kept."""

import contextlib
import sys
import warnings
from collections.abc import Iterator

import jax

from adakd_jax.user_path import user_path

COMPILATION_CACHE = "~/.cache/adakd_jax/xla"


@contextlib.contextmanager
def user_errors(prog: str) -> Iterator[None]:
    """Ends the program with exit code 2 and the message of an error about files or values.

    For the part of a command that opens what the user named; an error after that is a defect and
    keeps its traceback. Warnings are shown as messages too, without a place in the code.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: print(
                f"{prog}: {message}", file=sys.stderr
            )
            yield
    except (OSError, ValueError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def keep_compilations() -> None:
    """Has JAX keep compiled programs for later starts, unless it was told where already."""
    if jax.config.values.get("jax_compilation_cache_dir") is None:
        jax.config.update("jax_compilation_cache_dir", str(user_path(COMPILATION_CACHE)))
