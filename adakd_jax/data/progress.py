"""A progress line for work that turns out to take more than a moment."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from adakd_jax.console import Console, progress_text

Item = TypeVar("Item")

_APPEARS_AFTER_SECONDS = 2.0
_LOG_EVERY_SECONDS = 30.0


_silent = False


def silence() -> None:
    """Show nothing from now on: another process of the run does."""
    global _silent
    _silent = True


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Passes items through, showing on stderr how far they are once that takes over two seconds.

    A terminal gets a bar that vanishes at the end; a log file gets a line every half minute.

    Args:
      items: what is being worked through.
      what: names the work, for example 'tokenizing'.
      total: number of items, if known.

    Returns:
      The same items.
    """
    console = Console(stderr=True, quiet=_silent)
    source = iter(items)
    began = time.monotonic()
    done = 0
    for item in source:
        yield item
        done += 1
        if time.monotonic() - began > _APPEARS_AFTER_SECONDS:
            break
    else:
        return
    shown = _bar if console.is_terminal else _lines
    yield from shown(source, what, done, total, console)


def _bar(
    source: Iterator[Item], what: str, done: int, total: int | None, console: Console
) -> Iterator[Item]:
    columns = (
        progress_text("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total, completed=done)
        for item in source:
            yield item
            progress.advance(task)


def _lines(
    source: Iterator[Item], what: str, done: int, total: int | None, console: Console
) -> Iterator[Item]:
    last = float("-inf")
    for item in source:
        if time.monotonic() - last > _LOG_EVERY_SECONDS:
            console.print(f"{what}: {done}" if total is None else f"{what}: {done}/{total}")
            last = time.monotonic()
        yield item
        done += 1
