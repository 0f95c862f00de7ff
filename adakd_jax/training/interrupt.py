"""SIGTERM and Ctrl-C: in the train loop a wish to stop after the current step, else an end."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType

from adakd_jax.processes import leave

SIGNALS = (signal.SIGTERM, signal.SIGINT)
NOTHING_UNSAVED = "nothing unsaved; the same command continues"
# What Python cannot handle because it waits for compiled code, such as a compilation, is ended
# after this many seconds: less than the grace time of any scheduler.
PATIENCE_SECONDS = 2.0


class StopRequest:
    """Within the context, the first SIGTERM or SIGINT only sets `name`. A second SIGTERM changes
    nothing: what is being saved is saved. A second SIGINT, by hand, interrupts at once.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.name is None:
            self.name = name
            _say(f"{name}: saves after this step and ends; Ctrl-C now ends without saving")
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            _say(f"{name} again: saving is under way already")


def terminated(number: int, frame: FrameType | None) -> None:
    """SIGTERM outside the train loop: nothing is unsaved, and there is nothing to wait for."""
    _say(f"SIGTERM: {NOTHING_UNSAVED}")
    leave(0)


def end_when_terminated() -> None:
    """Have SIGTERM end this program, within seconds even while Python waits for compiled code.

    To be called once, by the main thread of a command. Inside a `StopRequest` that one decides.
    """
    signal.signal(signal.SIGTERM, terminated)
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    threading.Thread(target=_end_if_unheard, args=(heard,), name="signals", daemon=True).start()


def _end_if_unheard(heard: int) -> None:
    """Waits for a SIGTERM that `terminated` is to handle, and ends the program if it cannot."""
    while number := os.read(heard, 1):
        if number[0] != signal.SIGTERM or signal.getsignal(signal.SIGTERM) is not terminated:
            continue
        time.sleep(PATIENCE_SECONDS)
        # Unless the train loop began just then, heard it, and is saving.
        if signal.getsignal(signal.SIGTERM) is terminated:
            _say(f"SIGTERM, while busy: {NOTHING_UNSAVED}")
            leave(0)


def _say(line: str) -> None:
    """Prints where a signal may have interrupted another print, which a buffer would not bear."""
    os.write(2, f"{line}\n".encode())
