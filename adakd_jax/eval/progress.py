"""What generation shows while it runs: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from adakd_jax.console import Console, progress_text
from adakd_jax.eval.generate import GenerationProgress

_LINE_SECONDS = 10.0


@contextlib.contextmanager
def shown_generation(
    what: str, console: Console | None = None
) -> Iterator[Callable[[GenerationProgress], None]]:
    """Gives what `generate` is to call: shows prompts answered and tokens per second.

    Args:
      what: names the work, for example 'answering'.
      console: where to show it; by default stderr.
    """
    console = console or Console(stderr=True)
    began = time.monotonic()
    if not console.is_terminal:
        yield _lines(what, console, began)
        return
    columns = (
        progress_text("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        progress_text("{task.fields[speed]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, speed="compiling")

        def update(done: GenerationProgress) -> None:
            speed = _speed(done, began)
            bar.update(task, total=done.total, completed=done.answered, speed=speed)

        yield update


def _lines(what: str, console: Console, began: float) -> Callable[[GenerationProgress], None]:
    last = began

    def write(done: GenerationProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_SECONDS:
            last = time.monotonic()
            console.print(f"{what}: {done.answered}/{done.total}  {_speed(done, began)}")

    return write


def _speed(done: GenerationProgress, began: float) -> str:
    return f"{done.tokens / max(time.monotonic() - began, 1e-9):,.0f} tok/s"
