"""What the commands of this package share: mistakes of the user end them without a traceback."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def user_errors(prog: str) -> Iterator[None]:
    """Ends the program with exit code 2 and the message of an error about files or values.

    For the part of a command that opens what the user named; an error after that is a defect and
    keeps its traceback.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
